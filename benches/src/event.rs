//! The event that is sent: the same for every peer, in the sizes that are asked for.

/// An event of exactly `size` bytes, at least 300. What is beyond those is a list of items, as a shop would send them.
pub fn event(size: usize) -> String {
    const HEAD: &str = concat!(
        r#"{"page":"/products/espresso-machine","user":"b71c9a52f04e","session":"01890a5d-ac96-774b-bcce-b302099a8057","#,
        r#""kind":"view","time":1763991123456,"price":129.5,"first":false,"tags":["coffee","kitchen"],"#,
        r#""screen":{"width":1920,"height":1080},"referrer":"https://www.example.com/"#,
    );
    const MIDDLE: &str = r#"","items":["#;
    const ITEM: &str =
        r#"{"sku":"EM-4711-B","name":"Espresso machine, \u00e9mail","count":1,"price":129.5,"sale":true}"#;
    const END: &str = "]}";
    let mut text = HEAD.to_owned();
    let mut items = Vec::new();
    let used = |items: usize| HEAD.len() + MIDDLE.len() + items * (ITEM.len() + 1) + END.len();
    while size > 300 && used(items.len() + 1) <= size {
        items.push(ITEM);
    }
    let list = items.join(",");
    let rest = size - HEAD.len() - MIDDLE.len() - list.len() - END.len();
    text.extend(std::iter::repeat_n('x', rest));
    text + MIDDLE + &list + END
}

/// What a request carries: one event, or an array of many.
pub fn body(size: usize, batch: Option<usize>) -> String {
    match batch {
        None => event(size),
        Some(count) => format!("[{}]", vec![event(size); count].join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_the_size_that_is_asked_for() {
        for size in [300, 1000, 1024, 10_000] {
            assert_eq!(event(size).len(), size);
        }
    }
}
