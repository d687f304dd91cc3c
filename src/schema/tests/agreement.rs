//! Agreement with the crate's own validation of `serde_json::Value`: the same verdict and the same places, over random schemas and events.
//! `METEORIT_CASES` sets how many schemas are tried.

use jsonschema::json::{Array, Json, JsonNumber, Node, Object};
use jsonschema::{JsonType, PatternOptions};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

use super::*;

/// Texts of JSON values, so that every spelling is met. None is beyond f64, which `serde_json` refuses.
fn value(depth: u32) -> BoxedStrategy<String> {
    let numbers = [
        "0",
        "-0",
        "-0.0",
        "0.0",
        "1",
        "1.0",
        "10e-1",
        "-1",
        "2",
        "2.5",
        "3",
        "0.1",
        "0.3",
        "1e2",
        "100",
        "1e-7",
        "1e300",
        "9007199254740993",
        "9007199254740992.0",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "-9223372036854775809",
        "18446744073709551615",
        "18446744073709551616",
        "18446744073709551617",
        "1.8446744073709552e19",
        "123456789012345678901234567890",
        "1e-400",
        "5e-324",
    ];
    let strings = [
        r#""""#,
        r#""a""#,
        r#""\u0061""#,
        r#""ab""#,
        r#""é""#,
        r#""\u00e9""#,
        r#""e\u0301""#,
        r#""😀""#,
        r#""\ud83d\ude00""#,
        r#""a\/b""#,
        r#""\u0000""#,
        r#""1""#,
        r#""a\nb""#,
        r#""aaaaaaaaaa""#,
    ];
    let leaf = prop_oneof![
        4 => select(numbers.to_vec()).prop_map(str::to_owned),
        4 => select(strings.to_vec()).prop_map(str::to_owned),
        1 => select(vec!["true", "false", "null"]).prop_map(str::to_owned),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    let name = select(vec![r#""a""#, r#""\u0061""#, r#""b""#, r#""c""#, r#""é""#, r#""\u00e9""#, r#""""#, r#""ab""#]);
    let member = (name, value(depth - 1)).prop_map(|(name, value)| format!("{name}:{value}"));
    prop_oneof![
        3 => leaf,
        2 => prop::collection::vec(value(depth - 1), 0..4).prop_map(|values| format!("[{}]", values.join(", "))),
        1 => (value(0), 15_usize..20).prop_map(|(value, count)| {
            let others: Vec<_> = (0..count).map(|n| n.to_string()).collect();
            format!("[{value},{}]", others.join(","))
        }),
        3 => prop::collection::vec(member, 0..4).prop_map(|members| format!("{{ {} }}", members.join(" ,"))),
    ]
    .boxed()
}

fn parsed(text: String) -> Value {
    serde_json::from_str(&text).expect("JSON")
}

/// A schema of few keywords; of values, the same ones as in events.
fn rules(depth: u32) -> BoxedStrategy<Value> {
    let types = select(vec!["object", "array", "string", "number", "integer", "boolean", "null"]);
    let number = || {
        let numbers =
            [json!(0), json!(1), json!(1.0), json!(-1), json!(2.5), json!(u64::MAX), json!(i64::MIN), json!(1e19)];
        select(numbers.to_vec())
    };
    let keyword = |name: &'static str, value: BoxedStrategy<Value>| value.prop_map(move |value| (name, value)).boxed();
    let constant = || value(2).prop_map(parsed).boxed();
    let count = || (0_u64..4).prop_map(|count| json!(count)).boxed();
    let factors = select(vec![json!(1), json!(2), json!(0.1), json!(0.5), json!(3), json!(1e10)]);
    let names = select(vec![json!("a"), json!("b"), json!("é"), json!("")]);
    let patterns = select(vec![
        json!("a"),
        json!("^a$"),
        json!("^(a|b)$"),
        json!("é"),
        json!("^\\S*$"),
        json!("\\d"),
        json!("^.{2}$"),
    ]);
    let mut keywords = vec![
        keyword("type", types.clone().prop_map(|one| json!(one)).boxed()),
        keyword("type", prop::collection::btree_set(types, 1..4).prop_map(|some| json!(some)).boxed()),
        keyword("const", constant()),
        keyword("enum", prop::collection::vec(constant(), 1..5).prop_map(Value::from).boxed()),
        keyword("minimum", number().boxed()),
        keyword("maximum", number().boxed()),
        keyword("exclusiveMinimum", number().boxed()),
        keyword("exclusiveMaximum", number().boxed()),
        keyword("multipleOf", factors.boxed()),
        keyword("minLength", count()),
        keyword("maxLength", count()),
        keyword("pattern", patterns.clone().boxed()),
        keyword("format", Just(json!("email")).boxed()),
        keyword("minItems", count()),
        keyword("maxItems", count()),
        keyword("uniqueItems", Just(json!(true)).boxed()),
        keyword("minProperties", count()),
        keyword("maxProperties", count()),
        keyword(
            "required",
            prop::collection::btree_set(names.prop_map(|name| name.as_str().map(str::to_owned)), 1..5)
                .prop_map(|some| json!(some))
                .boxed(),
        ),
        keyword("$ref", select(vec![json!("#"), json!("#/$defs/x"), json!("#/$defs/y")]).boxed()),
    ];
    if depth > 0 {
        let below = || rules(depth - 1);
        let named = |names: BoxedStrategy<Value>| {
            let member =
                (names, below()).prop_map(|(name, rules)| (name.as_str().unwrap_or_default().to_owned(), rules));
            prop::collection::vec(member, 1..5).prop_map(|members| Value::Object(members.into_iter().collect())).boxed()
        };
        let member = || select(vec![json!("a"), json!("b"), json!("c"), json!("é"), json!("")]).boxed();
        let some = || prop::collection::vec(below(), 1..4).prop_map(Value::from).boxed();
        for _ in 0..3 {
            keywords.push(keyword("properties", named(member())));
        }
        keywords.extend([
            keyword("patternProperties", named(patterns.boxed())),
            keyword("propertyNames", below()),
            keyword("additionalProperties", prop_oneof![Just(json!(false)), below()].boxed()),
            keyword("unevaluatedProperties", prop_oneof![Just(json!(false)), below()].boxed()),
            keyword("dependentSchemas", named(member())),
            keyword("items", below()),
            keyword("prefixItems", some()),
            keyword("unevaluatedItems", prop_oneof![Just(json!(false)), below()].boxed()),
            keyword("contains", below()),
            keyword("allOf", some()),
            keyword("anyOf", some()),
            keyword("oneOf", some()),
            keyword("not", below()),
            keyword("if", below()),
            keyword("then", below()),
            keyword("else", below()),
        ]);
    }
    let keywords = prop::collection::vec(proptest::strategy::Union::new(keywords), 0..5);
    keywords
        .prop_map(|keywords| keywords.into_iter().map(|(name, rules)| (name.to_owned(), rules)).collect::<Value>())
        .boxed()
}

/// Not the same once they are an f64. `multipleOf` divides the digits that were sent, which only the tape still has.
const INEXACT: [&str; 7] = [
    "1e-400",
    "9007199254740993",
    "-9223372036854775809",
    "9223372036854775809",
    "18446744073709551617",
    "18446744073709551616",
    "123456789012345678901234567890",
];

/// Whether the event is valid; an error when the tape and `serde_json` differ in that or in the places of violations. `None` when they may.
fn compare(schema: &Value, text: &str) -> Result<Option<bool>, String> {
    if schema.to_string().contains("multipleOf") && INEXACT.iter().any(|number| text.contains(number)) {
        return Ok(None);
    }
    let build = |error: jsonschema::ValidationError<'_>| format!("{error}; {schema}");
    let ours = jsonschema::options_for::<json::Tape>()
        .with_pattern_options(PatternOptions::regex())
        .build(schema)
        .map_err(build)?;
    let theirs = jsonschema::options().with_pattern_options(PatternOptions::regex()).build(schema).map_err(build)?;
    let value: Value = serde_json::from_str(text).map_err(|error| format!("{error}: {text}"))?;
    with_event(text, |event| {
        let root = || json::TapeNode::Value(event.root());
        let place = |error: jsonschema::ValidationError<'_>| {
            (error.instance_path().to_string(), error.schema_path().to_string())
        };
        let mut places: Vec<_> = ours.iter_errors(root()).map(place).collect();
        let mut expected: Vec<_> = theirs.iter_errors(&value).map(place).collect();
        // Members come in the order of the text here, in that of their names there.
        places.sort();
        expected.sort();
        let valid = ours.is_valid(root());
        if places != expected || valid != expected.is_empty() || theirs.is_valid(&value) != valid {
            return Err(format!("{valid}, {places:?} instead of {expected:?}; {schema}; {text}"));
        }
        Ok(Some(valid))
    })
}

fn run(draft: &str, cases: u32) {
    let cases = std::env::var("METEORIT_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(cases);
    let strategy = (rules(2), rules(1), rules(1), prop::collection::vec(value(3), 8));
    let config =
        ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 2000, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let (valid, invalid) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let result = runner.run(&strategy, |(rules, x, y, values)| {
        let schema = json!({
            "$schema": draft,
            "properties": {"it": rules},
            "$defs": {"x": x, "y": y},
        });
        for value in values {
            match compare(&schema, &format!("{{\"it\":{value}}}")) {
                Ok(Some(true)) => valid.set(valid.get() + 1),
                Ok(Some(false)) => invalid.set(invalid.get() + 1),
                Ok(None) => {}
                Err(error) => prop_assert!(false, "{}", error),
            }
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    println!("{} valid, {} invalid", valid.get(), invalid.get());
    assert!(valid.get() > cases && invalid.get() > cases, "{} valid, {} invalid", valid.get(), invalid.get());
}

#[test]
fn verdicts_agree_in_2020_12() {
    run("https://json-schema.org/draft/2020-12/schema", 1000);
}

#[test]
fn verdicts_agree_in_draft_7() {
    run("http://json-schema.org/draft-07/schema#", 1000);
}

#[test]
fn deep_events_agree() {
    let schema = json!({"$ref": "#/$defs/x", "$defs": {"x": {"anyOf": [
        {"type": "integer"},
        {"type": "array", "items": {"$ref": "#/$defs/x"}},
        {"type": "object", "additionalProperties": {"$ref": "#/$defs/x"}, "maxProperties": 2},
    ]}}});
    for depth in [1, 10, 60] {
        for (core, valid) in [("1", true), ("null", false)] {
            let text = format!("{{\"a\":{}{core}{}}}", "[{\"b\":".repeat(depth), "}]".repeat(depth));
            assert_eq!(compare(&schema, &text), Ok(Some(valid)), "{depth}");
        }
    }
}

/// What the crate's feature `conformance` asks of a representation, as far as verdicts do not show it.
#[test]
fn nodes_keep_the_contract_of_the_crate() {
    let text = r#"{"s":"h\u00e9llo","i":42,"f":1.5,"t":true,"z":null,"a":[10,[],{}],"o":{"n":"v"}}"#;
    with_event(text, |event| {
        let root = json::TapeNode::Value(event.root());
        let members = root.as_object().expect("an object");
        let member = |name: &str| members.get(&json::Tape::prepare_key(name)).expect("a member");
        assert_eq!((members.len(), members.is_empty()), (7, false));
        assert_eq!(member("s").string_length(), Some(5));
        assert_eq!(member("i").string_length(), None);
        let integer = member("i").as_number().expect("a number");
        assert_eq!((integer.as_u64(), integer.as_i64(), integer.as_f64()), (Some(42), Some(42), Some(42.0)));
        let float = member("f").as_number().expect("a number");
        assert_eq!(
            (float.as_u64(), float.as_i64(), float.as_f64(), float.is_integer()),
            (None, None, Some(1.5), false)
        );
        assert_eq!(member("a").as_array().expect("an array").len(), 3);
        assert!(root.equals_value(&serde_json::from_str(text).expect("JSON")));
        let mut identities: Vec<_> = members.members().map(|(_, node)| node.identity()).collect();
        identities.push(root.identity());
        identities.extend(member("a").as_array().expect("an array").elements().map(|node| node.identity()));
        for (at, one) in identities.iter().enumerate() {
            assert!(one.is_some() && !identities[at + 1..].contains(one));
        }
        json::Tape::with_string_node(&mut (), "é", |node| {
            assert_eq!((node.json_type(), node.as_string().as_deref()), (JsonType::String, Some("é")));
        });
    });
}
