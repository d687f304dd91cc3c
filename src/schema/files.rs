//! Reads a schema and the files below its directory that it refers to, compiles them, and says of a broken one in which file and where.

use std::error::Error;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

use jsonschema::error::ValidationErrorKind as Kind;
use jsonschema::{Draft, PatternOptions, ReferencingError, Retrieve, Uri, ValidationError, Validator};
use serde_json::Value;

use super::json::Tape;

/// Why there is no schema.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error("cannot read schema \"{}\": {source}", file.display())]
    Read { file: PathBuf, source: io::Error },
    /// With line and column, from 1.
    #[error("schema \"{}\" is not JSON: {source}", file.display())]
    Json { file: PathBuf, source: serde_json::Error },
    /// Against the schema of its draft, or with a reference that leads nowhere. The pointer is that of the faulty value, or of the
    /// reference, in this file.
    #[error("schema \"{}\" is broken at \"{pointer}\": {detail}", file.display())]
    Broken { file: PathBuf, pointer: String, detail: String },
}

/// The validator, and whether no schema has alternatives.
pub(super) fn compile(path: &Path) -> Result<(Validator<Tape>, bool), SchemaError> {
    let read = |source| SchemaError::Read { file: path.to_owned(), source };
    let around = path.parent().filter(|around| !around.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The file itself may be a link to elsewhere, as Kubernetes mounts configuration.
    let root = around.canonicalize().map_err(read)?;
    let name = path.file_name().ok_or_else(|| read(io::ErrorKind::IsADirectory.into()))?;
    let schema = parse(path, &fs::read(path).map_err(read)?)?;
    let draft = Draft::default().detect(&schema);
    check(path, draft, &schema)?;

    let mut documents =
        Vec::from([Document { file: path.to_owned(), address: root.join(name), schema: schema.clone() }]);
    let base = address_uri(&root.join(name));
    let directory = Directory(Arc::new(Loader { root, draft, loaded: Mutex::default() }));
    let loader = Arc::clone(&directory.0);
    let validator = jsonschema::options_for::<Tape>()
        .with_base_uri(base)
        .with_retriever(directory)
        .with_pattern_options(PatternOptions::regex())
        .should_validate_formats(false)
        .build(&schema);
    documents.append(&mut loader.loaded.lock().unwrap_or_else(PoisonError::into_inner));
    match validator {
        Ok(validator) => Ok((validator, !documents.iter().any(|document| has_alternatives(&document.schema)))),
        Err(error) => Err(explain(error, &documents)),
    }
}

/// Wherever the words are.
fn has_alternatives(schema: &Value) -> bool {
    match schema {
        Value::Object(members) => {
            members.iter().any(|(name, value)| matches!(&**name, "anyOf" | "oneOf") || has_alternatives(value))
        }
        Value::Array(elements) => elements.iter().any(has_alternatives),
        _ => false,
    }
}

fn parse(file: &Path, text: &[u8]) -> Result<Value, SchemaError> {
    serde_json::from_slice(text).map_err(|source| SchemaError::Json { file: file.to_owned(), source })
}

/// Against the schema of its draft.
fn check(file: &Path, draft: Draft, schema: &Value) -> Result<(), SchemaError> {
    let verdict = match draft.detect(schema) {
        Draft::Draft7 => jsonschema::draft7::meta::validate(schema),
        Draft::Draft202012 => jsonschema::draft202012::meta::validate(schema),
        // Refused or checked when it is compiled.
        _ => Ok(()),
    };
    verdict.map_err(|error| broken(file, error.instance_path().as_str(), detail(&error)))
}

/// A file that was read.
struct Document {
    /// As the configuration named it, or as it is found from the directory.
    file: PathBuf,
    /// Before links are followed, absolute.
    address: PathBuf,
    schema: Value,
}

impl Document {
    /// The path of a relative reference, without steps upwards (RFC 3986, section 5.2.4).
    fn beside(&self, target: &str) -> Option<String> {
        let mut path = PathBuf::new();
        for component in self.address.parent()?.join(decoded(target)?).components() {
            match component {
                Component::ParentDir => drop(path.pop()),
                other => path.push(other),
            }
        }
        path.into_os_string().into_string().ok()
    }
}

/// Gives the crate what a schema refers to.
struct Directory(Arc<Loader>);

struct Loader {
    /// Canonical.
    root: PathBuf,
    draft: Draft,
    loaded: Mutex<Vec<Document>>,
}

impl Retrieve for Directory {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn Error + Send + Sync>> {
        self.0.load(uri.as_str())
    }
}

impl Loader {
    fn load(&self, uri: &str) -> Result<Value, Box<dyn Error + Send + Sync>> {
        let Some(address) = uri.strip_prefix("file://").and_then(uri_path) else {
            return Err(format!(
                "{uri:?} is no file; references to the network are not followed, and a relative one is relative to \"$id\""
            )
            .into());
        };
        let found = address.canonicalize().map_err(|error| format!("{:?}: {error}", address.display()))?;
        if !found.starts_with(&self.root) {
            return Err(format!("{:?} is not below the schema's directory", address.display()).into());
        }
        let text = fs::read(&found).map_err(|error| format!("{:?}: {error}", address.display()))?;
        let schema = parse(&address, &text)?;
        check(&address, self.draft, &schema)?;
        let document = Document { file: address.clone(), address, schema: schema.clone() };
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).push(document);
        Ok(schema)
    }
}

/// Percent-encoded (RFC 8089, section 2), so that whatever is in a path is in no other part of the address.
fn address_uri(path: &Path) -> String {
    let mut uri = String::from("file://");
    for &byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => uri.push(byte.into()),
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri
}

/// The path of a file's address; `None` when it has a host or is no UTF-8.
fn uri_path(encoded: &str) -> Option<PathBuf> {
    if !encoded.starts_with('/') || encoded.contains(['?', '#']) {
        return None;
    }
    decoded(encoded).map(PathBuf::from)
}

fn decoded(encoded: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = encoded.as_bytes();
    while let [byte, tail @ ..] = rest {
        (rest, _) = match (byte, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let digit = |digit: u8| char::from(digit).to_digit(16);
                (tail, bytes.push((digit(*high)? << 4 | digit(*low)?) as u8))
            }
            _ => (tail, bytes.push(*byte)),
        };
    }
    String::from_utf8(bytes).ok()
}

fn broken(file: &Path, pointer: &str, detail: String) -> SchemaError {
    SchemaError::Broken { file: file.to_owned(), pointer: pointer.to_owned(), detail }
}

/// The crate's words: a schema is no secret.
fn detail(error: &ValidationError<'_>) -> String {
    match error.kind() {
        Kind::Format { format } if format == "regex" => {
            format!("{} is not a regular expression, or has look-around or back-references", error.instance())
        }
        // Which alternative was meant nobody knows; the first one tells most.
        Kind::AnyOf { context } => match context.first().and_then(|errors| errors.first()) {
            Some(error) => error.to_string(),
            None => error.to_string(),
        },
        _ => error.to_string(),
    }
}

/// The crate says where in a file, but not in which one; for a reference neither.
fn explain(error: ValidationError<'_>, documents: &[Document]) -> SchemaError {
    let detail = detail(&error);
    let parts = error.into_parts();
    let pointer = parts.instance_path.as_str();
    let Kind::Referencing(error) = parts.kind else {
        let holds = |document: &&Document| document.schema.pointer(pointer) == Some(&parts.instance);
        let has = |document: &&Document| document.schema.pointer(pointer).is_some();
        let document = documents.iter().find(holds).or_else(|| documents.iter().rfind(has));
        return broken(file_of(document), pointer, detail);
    };
    let (detail, sought) = match error {
        ReferencingError::Unretrievable { uri, source } => match source.downcast::<SchemaError>() {
            Ok(error) => return *error,
            Err(source) => (source.to_string(), Sought::File(uri)),
        },
        ReferencingError::PointerToNowhere { pointer } => (detail, Sought::Fragment(pointer)),
        ReferencingError::NoSuchAnchor { anchor } => (detail, Sought::Fragment(anchor)),
        _ => (detail, Sought::Schema),
    };
    let mut places = documents.iter().flat_map(|document| {
        let mut found = Vec::new();
        references(&document.schema, &mut String::new(), &mut found);
        found.into_iter().map(move |(pointer, reference)| (document, pointer, reference))
    });
    let place = places.find(|(document, pointer, reference)| sought.is(document, pointer, reference, documents));
    match place {
        Some((document, pointer, _)) => broken(&document.file, &pointer, detail),
        None => broken(file_of(documents.first()), "", detail),
    }
}

fn file_of(document: Option<&Document>) -> &Path {
    document.map_or(Path::new(""), |document| &document.file)
}

/// All `$ref` and the like below a value, with their pointers.
fn references<'a>(value: &'a Value, pointer: &mut String, found: &mut Vec<(String, &'a str)>) {
    let length = pointer.len();
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                pointer.push('/');
                pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
                match value {
                    Value::String(reference) if matches!(&**name, "$ref" | "$dynamicRef" | "$schema") => {
                        found.push((pointer.clone(), reference));
                    }
                    value => references(value, pointer, found),
                }
                pointer.truncate(length);
            }
        }
        Value::Array(elements) => {
            for (index, value) in elements.iter().enumerate() {
                pointer.push_str(&format!("/{index}"));
                references(value, pointer, found);
                pointer.truncate(length);
            }
        }
        _ => {}
    }
}

/// What is known of a reference that leads nowhere.
enum Sought {
    /// What became of its part before the fragment.
    File(String),
    /// What is behind the `#`.
    Fragment(String),
    /// A `$schema` that names no known draft.
    Schema,
}

impl Sought {
    fn is(&self, document: &Document, pointer: &str, reference: &str, documents: &[Document]) -> bool {
        let (target, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        match self {
            Sought::File(uri) => {
                let path = uri.strip_prefix("file://").and_then(decoded);
                let target_path = document.beside(target);
                !target.is_empty() && (uri.ends_with(target) || path.is_some() && path == target_path)
            }
            Sought::Fragment(sought) => {
                let known = match target {
                    "" => Some(document),
                    target => {
                        let target = document.beside(target).map(PathBuf::from);
                        documents.iter().find(|other| Some(&other.address) == target.as_ref())
                    }
                };
                let leads = |known: &Document| known.schema.pointer(sought).is_some();
                decoded(fragment).as_ref() == Some(sought) && !known.is_some_and(leads)
            }
            Sought::Schema => pointer.ends_with("/$schema"),
        }
    }
}
