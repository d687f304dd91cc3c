use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::event::{DuplicateNames, Limits, Tape};

mod agreement;

/// A directory of schemas.
struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, serde_json::Value)]) -> Files {
        let directory = Files(tempfile::tempdir().expect("a directory"));
        for (name, schema) in files {
            directory.write(name, &schema.to_string());
        }
        directory
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, text).expect("a file");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self, name: &str) -> Result<Schema, String> {
        let root = self.0.path().to_str().expect("UTF-8");
        let canonical = self.0.path().canonicalize().expect("a directory");
        Schema::load(&self.path(name))
            .map_err(|error| error.to_string().replace(canonical.to_str().expect("UTF-8"), "").replace(root, ""))
    }
}

fn schema(schema: serde_json::Value) -> Schema {
    Files::new(&[("schema.json", schema)]).load("schema.json").expect("a schema")
}

fn with_event<T>(text: &str, then: impl FnOnce(Event<'_>) -> T) -> T {
    let limits = Limits { max_depth: 200, max_members: u32::MAX, duplicate_names: DuplicateNames::Allow };
    let mut tape = Tape::new();
    then(tape.parse(text.as_bytes(), &limits).expect("an event"))
}

fn valid(schema: &Schema, text: &str) -> bool {
    let valid = with_event(text, |event| schema.is_valid(event));
    assert_eq!(valid, violations(schema, text).is_empty(), "{text}");
    valid
}

fn violations(schema: &Schema, text: &str) -> Vec<(String, String)> {
    let violations = with_event(text, |event| schema.violations(event, 100));
    violations.into_iter().map(|violation| (violation.pointer, violation.detail)).collect()
}

#[test]
fn an_event_is_valid_or_not() {
    let page = schema(json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "required": ["page"],
        "properties": {
            "page": {"type": "string", "pattern": "^/", "maxLength": 5},
            "ms": {"type": "integer", "minimum": 0},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": true},
        },
        "additionalProperties": false,
    }));
    for text in [r#"{"page":"/caf\u00e9"}"#, r#"{"page":"/","ms":12.0,"tags":["a","b"]}"#] {
        assert!(valid(&page, text), "{text}");
    }
    for text in ["{}", r#"{"page":"x"}"#, r#"{"page":"/","ms":0.5}"#, r#"{"page":"/","tags":["a","\u0061"]}"#] {
        assert!(!valid(&page, text), "{text}");
    }
}

#[test]
fn both_drafts_are_known_by_their_names() {
    let rest = json!([{"type": "integer"}, {"type": "string"}]);
    let draft7 = schema(json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "properties": {"list": {"items": rest, "additionalItems": false}},
    }));
    let draft2020 = schema(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "properties": {"list": {"prefixItems": rest, "unevaluatedItems": false}},
    }));
    let unnamed = schema(json!({"properties": {"list": {"prefixItems": rest, "items": false}}}));
    for schema in [draft7, draft2020, unnamed] {
        assert!(valid(&schema, r#"{"list":[1,"a"]}"#));
        assert!(!valid(&schema, r#"{"list":[1,"a",null]}"#));
        assert!(!valid(&schema, r#"{"list":["a"]}"#));
    }
}

#[test]
fn of_a_name_sent_twice_the_last_counts() {
    let schema = schema(json!({
        "properties": {"a": {"type": "integer"}},
        "additionalProperties": false,
        "maxProperties": 1,
    }));
    assert!(valid(&schema, r#"{"a":"x","\u0061":1}"#));
    assert!(!valid(&schema, r#"{"a":1,"a":"x"}"#));
}

#[test]
fn numbers_beyond_f64_have_a_sign_and_a_size() {
    let schema = |rule| schema(json!({"properties": {"n": rule}}));
    for number in ["1e999", "17e1000", &"9".repeat(400)] {
        let event = format!("{{\"n\":{number}}}");
        let negative = format!("{{\"n\":-{number}}}");
        assert!(valid(&schema(json!({"type": "number"})), &event));
        assert!(valid(&schema(json!({"type": "integer"})), &event));
        assert!(valid(&schema(json!({"minimum": 1e300})), &event));
        assert!(!valid(&schema(json!({"minimum": 1e300})), &negative));
        assert!(!valid(&schema(json!({"exclusiveMaximum": 1e300})), &event));
        assert!(valid(&schema(json!({"exclusiveMaximum": -1e300})), &negative));
        assert!(!valid(&schema(json!({"const": 0})), &event));
        assert!(!valid(&schema(json!({"enum": [0, f64::MAX]})), &event));
        let unique = schema(json!({"uniqueItems": true}));
        assert!(valid(&unique, &format!("{{\"n\":[{number},-{number},1,{number}0]}}")));
        assert!(!valid(&unique, &format!("{{\"n\":[{number},1,{number}]}}")));
    }
}

#[test]
fn a_violation_says_where_and_what_without_the_values() {
    let schema = schema(json!({
        "required": ["page", "user"],
        "properties": {
            "a/b": {"type": ["integer", "null"]},
            "page": {"pattern": "^/[a-z]+$", "minLength": 3},
            "kind": {"enum": ["view", "click"]},
            "list": {"items": {"maximum": 3}, "maxItems": 1, "uniqueItems": true},
            "names": {"propertyNames": {"maxLength": 1}},
            "secret": {"anyOf": [{"const": 1}, {"type": "object"}]},
            "not": {"not": {"type": "string"}},
        },
        "additionalProperties": false,
    }));
    let text = r#"{"a/b":"s3cret","page":"-","kind":"s3cret","list":["s3cret",4,4],"names":{"s3":"s3cret"},
        "secret":"s3cret","not":"s3cret","x~/y":"s3cret","z":0}"#;
    let mut found = violations(&schema, text);
    found.sort();
    let expected = [
        ("", "must have a member \"user\""),
        ("/a~1b", "must be null or an integer"),
        ("/kind", "must be one of [\"view\",\"click\"]"),
        ("/list", "must have at most 1 element"),
        ("/list", "must not have two equal elements"),
        ("/list/1", "must be at most 3"),
        ("/list/2", "must be at most 3"),
        ("/names", "a member's name must have at most 1 character"),
        ("/not", "must not be what the schema excludes"),
        ("/page", "must have at least 3 characters"),
        ("/page", "must match ^/[a-z]+$"),
        ("/secret", "must be one of the alternatives of the schema"),
        ("/x~0~1y", "not a member that the schema allows"),
        ("/z", "not a member that the schema allows"),
    ];
    let found: Vec<_> = found.iter().map(|(pointer, detail)| (&**pointer, &**detail)).collect();
    assert_eq!(found, expected);
    with_event(text, |event| assert_eq!(schema.violations(event, 3).len(), 3));
    with_event(text, |event| assert_eq!(schema.violations(event, 0), []));
}

#[test]
fn a_large_event_costs_no_more_than_its_first_violation() {
    let list = |rules: serde_json::Value| schema(json!({"properties": {"list": {"items": rules}}}));
    let text = format!("{{\"list\":[0{}]}}", ",\"\"".repeat(300_000));
    let started = std::time::Instant::now();
    let first = ("/list/1".to_owned(), "must be an integer".to_owned());
    assert_eq!(violations(&list(json!({"type": "integer"})), &text), [first]);
    let somewhere = (String::new(), "not what the schema describes".to_owned());
    let alternatives = json!({"anyOf": [{"type": "integer"}, {"type": "null"}]});
    assert_eq!(violations(&list(alternatives.clone()), &text), [somewhere]);
    let outer =
        schema(json!({"anyOf": [{"properties": {"list": {"items": {"type": "integer"}}}}, {"required": ["a"]}]}));
    assert_eq!(violations(&outer, &text).len(), 1);
    let text = text.replace("\"\"", "null");
    assert_eq!(violations(&list(alternatives), &text), []);
    assert!(started.elapsed() < std::time::Duration::from_secs(1), "{:?}", started.elapsed());
}

#[test]
fn violations_stay_short() {
    let options: Vec<_> = (0..100).map(|n| format!("é{n}")).collect();
    let long = "é".repeat(600);
    let schema = schema(json!({
        "properties": {"a": {"enum": options}, long.as_str(): {"type": "null"}},
        "additionalProperties": false,
    }));
    for (pointer, detail) in violations(&schema, &format!("{{\"a\":1,\"{long}\":1,\"{long}x\":1}}")) {
        assert!(pointer.len() <= 1000 && detail.chars().count() <= 200, "{pointer}: {detail}");
        assert_eq!(pointer.ends_with('…'), pointer != "/a");
        assert_eq!(detail.ends_with('…'), pointer == "/a");
    }
}

#[test]
fn formats_are_not_asserted() {
    for draft in ["http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema"] {
        let schema = schema(json!({"$schema": draft, "properties": {"at": {"format": "date-time"}}}));
        assert!(valid(&schema, r#"{"at":"yesterday"}"#));
    }
}

#[test]
fn references_lead_to_files_below_the_directory() {
    let text = json!({"type": "string"});
    let files = Files::new(&[
        (
            "main.json",
            json!({"properties": {
            "a": {"$ref": "a.json"},
            "b": {"$ref": "./deep/b.json#/$defs/b"},
            "c": {"$ref": "#/$defs/c"},
            "d": {"$ref": "deep/../d%20%C3%A9.json"},
            "e": {"$ref": "linked.json"},
        }, "$defs": {"c": text}}),
        ),
        ("a.json", text.clone()),
        ("deep/b.json", json!({"$defs": {"b": {"$ref": "../a.json"}}})),
        ("d é.json", text.clone()),
        ("real/e.json", text),
    ]);
    std::os::unix::fs::symlink("real/e.json", files.path("linked.json")).expect("a link");
    let schema = files.load("main.json").expect("a schema");
    for name in ["a", "b", "c", "d", "e"] {
        assert!(valid(&schema, &format!("{{\"{name}\":\"\"}}")), "{name}");
        assert!(!valid(&schema, &format!("{{\"{name}\":1}}")), "{name}");
    }
}

#[test]
fn a_directory_of_links_is_one_directory() {
    let files = Files::new(&[
        ("mount/..data/main.json", json!({"properties": {"a": {"$ref": "a.json"}}})),
        ("mount/..data/a.json", json!({"type": "string"})),
    ]);
    for name in ["main.json", "a.json"] {
        let target = format!("..data/{name}");
        std::os::unix::fs::symlink(target, files.path("mount").join(name)).expect("a link");
    }
    let schema = files.load("mount/main.json").expect("a schema");
    assert!(!valid(&schema, r#"{"a":1}"#));
}

#[test]
fn no_reference_leaves_the_directory() {
    let files = Files::new(&[("outside.json", json!({})), ("in/ok.json", json!({}))]);
    std::os::unix::fs::symlink("../outside.json", files.path("in/link.json")).expect("a link");
    std::os::unix::fs::symlink("..", files.path("in/up")).expect("a link");
    let outside = files.path("outside.json");
    let refused = |reference: &str, why: &str| {
        files.write("in/main.json", &json!({"properties": {"a": {"$ref": reference}}}).to_string());
        let error = files.load("in/main.json").expect_err(reference);
        let start = "schema \"/in/main.json\" is broken at \"/properties/a/$ref\": ";
        assert!(error.starts_with(start) && error.contains(why), "{reference}: {error}");
    };
    let below = "is not below the schema's directory";
    refused("../outside.json", below);
    refused("%2e%2e/outside.json", below);
    refused("link.json", below);
    refused("up/outside.json", below);
    refused(outside.to_str().expect("UTF-8"), below);
    refused("/etc/passwd", below);
    refused("missing.json", "No such file or directory");
    let network = "references to the network are not followed";
    refused("http://example.com/x.json", network);
    refused("https://example.com/x.json#/a", network);
    refused("//example.com/x.json", network);
    refused("file://example.com/x.json", network);
    refused("ok.json?x", network);

    files.write("in/main.json", r##"{"$id":"https://example.com/main.json","$ref":"ok.json"}"##);
    let error = files.load("in/main.json").expect_err("the network");
    assert!(error.contains("\"/$ref\"") && error.contains("a relative one is relative to \"$id\""), "{error}");
}

#[test]
fn a_broken_schema_is_named_with_its_place() {
    let good = json!({"$defs": {"x": {}, "z": {}}});
    let files = Files::new(&[
        ("good.json", good),
        ("type.json", json!({"$defs": {"x": {"type": "text"}}})),
        ("pattern.json", json!({"$defs": {"x": {"properties": {"a/b": {"pattern": "(?=a)"}}}}})),
        ("chain.json", json!({"$defs": {"x": {"$ref": "good.json#/$defs/y"}}})),
    ]);
    files.write("text.json", "{\n  nothing");
    let broken = |schema: serde_json::Value, file: &str, pointer: &str, why: &str| {
        files.write("main.json", &schema.to_string());
        let error = files.load("main.json").expect_err("a broken schema");
        let start = format!("schema \"/{file}\" is broken at \"{pointer}\": ");
        assert!(error.starts_with(&start) && error.contains(why), "{schema}: {error}");
    };
    broken(json!(12), "main.json", "", "12 is not of types");
    broken(json!({"type": "text"}), "main.json", "/type", "\"text\" is not one of \"array\", \"boolean\"");
    broken(json!({"properties": {"a/b": {"minimum": "1"}}}), "main.json", "/properties/a~1b/minimum", "\"1\"");
    let draft7 = "http://json-schema.org/draft-07/schema#";
    broken(json!({"$schema": draft7, "required": "a"}), "main.json", "/required", "\"a\" is not of type \"array\"");
    broken(json!({"pattern": "("}), "main.json", "/pattern", "\"(\" is not a regular expression");
    broken(json!({"pattern": "a(?!b)"}), "main.json", "/pattern", "look-around");
    broken(json!({"$schema": "http://example.com/my"}), "main.json", "/$schema", "example.com");
    broken(json!({"items": {"$ref": "#/$defs/no"}}), "main.json", "/items/$ref", "'/$defs/no' does not exist");
    broken(json!({"items": {"$ref": "#no"}}), "main.json", "/items/$ref", "'no' does not exist");
    let two = json!({"allOf": [{"$ref": "good.json#/$defs/z"}, {"$ref": "#/$defs/z"}]});
    broken(two, "main.json", "/allOf/1/$ref", "'/$defs/z' does not exist");
    let leading_to = |file: &str| json!({"properties": {"a": {"$ref": format!("{file}#/$defs/x")}}});
    broken(leading_to("type.json"), "type.json", "/$defs/x/type", "\"text\" is not one of");
    broken(leading_to("pattern.json"), "pattern.json", "/$defs/x/properties/a~1b/pattern", "look-around");
    broken(leading_to("chain.json"), "chain.json", "/$defs/x/$ref", "'/$defs/y' does not exist");

    files.write("main.json", &leading_to("text.json").to_string());
    let error = files.load("main.json").expect_err("no JSON");
    assert_eq!(error, "schema \"/text.json\" is not JSON: key must be a string at line 2 column 3");
    let error = files.load("text.json").expect_err("no JSON");
    assert_eq!(error, "schema \"/text.json\" is not JSON: key must be a string at line 2 column 3");
    let error = files.load("none.json").expect_err("no file");
    assert_eq!(error, "cannot read schema \"/none.json\": No such file or directory (os error 2)");
    assert!(files.load("none/none.json").is_err() && Schema::load(Path::new("/")).is_err());
}
