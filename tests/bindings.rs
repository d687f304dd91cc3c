//! The bindings lay structs out as the C compiler does: every bit-field of the structs that the module touches, and their sizes.
//! A bit that is off by one shows nowhere else until an answer loses its body (rust-bindgen#3384).
#![cfg(feature = "nginx")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::mem::{offset_of, size_of, zeroed};
use std::process::Command;

#[allow(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    dead_code,
    unnecessary_transmutes,
    unsafe_op_in_unsafe_fn,
    clippy::all
)]
mod sys {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

const BINDINGS: &str = include_str!(concat!(env!("OUT_DIR"), "/bindings.rs"));

/// What is not zero of a struct in which one bit-field is all ones: bytes by their place.
type Bits = BTreeMap<usize, u8>;

/// A struct of the bindings: its name, its size, and where each of its groups of bit-fields is.
struct Layout {
    name: &'static str,
    size: usize,
    groups: Vec<(&'static str, usize)>,
}

macro_rules! layouts {
    ($($name:ident [$($group:ident)*])*) => {
        vec![$(Layout {
            name: stringify!($name),
            size: size_of::<sys::$name>(),
            groups: vec![$((stringify!($group), offset_of!(sys::$name, $group))),*],
        }),*]
    };
}

/// Those with bit-fields that the module touches, and those of which it only reads or makes whole ones.
fn layouts() -> Vec<Layout> {
    // Some have bit-fields with Angie only.
    #[cfg(angie)]
    let mut layouts = layouts! { ngx_log_s [_bitfield_1] ngx_shm_zone_s [_bitfield_1] };
    #[cfg(not(angie))]
    let mut layouts = layouts! { ngx_log_s [] ngx_shm_zone_s [] };
    layouts.extend(layouts! {
        ngx_http_request_s [_bitfield_1 _bitfield_2]
        ngx_event_s [_bitfield_1]
        ngx_connection_s [_bitfield_1]
        ngx_buf_s [_bitfield_1]
        ngx_peer_connection_s [_bitfield_1]
        ngx_http_core_loc_conf_s [_bitfield_1]
        ngx_variable_value_t [_bitfield_1]
        ngx_conf_s []
        ngx_module_s []
        ngx_command_s []
        ngx_http_conf_ctx_t []
        ngx_http_err_page_t []
        ngx_http_complex_value_t []
        ngx_http_core_main_conf_t []
        ngx_table_elt_t []
        ngx_slab_pool_t [_bitfield_1]
        ngx_http_core_srv_conf_t [_bitfield_1]
    });
    layouts
}

/// What the accessors change that the module calls, by name.
macro_rules! accessed {
    ($($name:ident { $($field:ident $setter:ident)* })*) => {{
        let mut all = BTreeMap::new();
        $($({
            // SAFETY: these are C structs, for which all zeros is a value.
            let mut value: sys::$name = unsafe { zeroed() };
            value.$setter(!0);
            assert!(value.$field() != 0, "{} does not read back", stringify!($field));
            // SAFETY: as many bytes as the struct has; it was zeroed whole, padding too.
            let bytes = unsafe {
                std::slice::from_raw_parts((&raw const value).cast::<u8>(), size_of::<sys::$name>())
            };
            all.insert(format!("{}.{}", stringify!($name), stringify!($field)), not_zero(bytes));
        })*)*
        all
    }};
}

#[test]
fn the_accessors_that_the_module_uses_touch_the_bits_of_the_c_compiler() {
    let accessed = accessed! {
        ngx_http_request_s {
            request_body_in_single_buf set_request_body_in_single_buf
            header_only set_header_only
            internal set_internal
            filter_finalize set_filter_finalize
        }
        ngx_event_s {
            write set_write
            ready set_ready
            timer_set set_timer_set
            posted set_posted
            cancelable set_cancelable
        }
        ngx_connection_s { idle set_idle close set_close }
        ngx_buf_s { in_file set_in_file last_buf set_last_buf last_in_chain set_last_in_chain }
        ngx_peer_connection_s { log_error set_log_error so_keepalive set_so_keepalive }
        ngx_http_core_loc_conf_s { noname set_noname lmt_excpt set_lmt_excpt }
        ngx_variable_value_t {
            len set_len
            valid set_valid
            no_cacheable set_no_cacheable
            not_found set_not_found
        }
    };
    let (_, compiled) = compiled();
    for (field, bits) in accessed {
        assert_eq!(Some(&bits), compiled.get(&field), "{field}: the bindings on the left, the C compiler on the right");
    }
}

#[test]
fn every_bit_field_lies_where_the_c_compiler_puts_it() {
    let (_, compiled) = compiled();
    let bound: BTreeMap<String, Bits> = layouts().iter().flat_map(bound_fields).collect();
    assert!(bound.keys().filter(|name| name.starts_with("ngx_http_request_s.")).count() > 60, "{:?}", bound.keys());
    for (field, bits) in &bound {
        assert_eq!(Some(bits), compiled.get(field), "{field}: the bindings on the left, the C compiler on the right");
    }
}

#[test]
fn every_struct_is_as_large_as_the_c_compiler_makes_it() {
    let (sizes, _) = compiled();
    for layout in layouts() {
        assert_eq!(Some(&layout.size), sizes.get(layout.name), "{}", layout.name);
    }
}

fn not_zero(bytes: &[u8]) -> Bits {
    bytes.iter().copied().enumerate().filter(|(_, byte)| *byte != 0).collect()
}

/// All bit-fields of a struct, read from the text of its accessors: `NAME` is in the group `_bitfield_N` at a bit, with a width.
fn bound_fields(layout: &Layout) -> Vec<(String, Bits)> {
    let start = format!("\nimpl {} {{\n", layout.name);
    let Some((_, text)) = BINDINGS.split_once(&start) else {
        assert!(layout.groups.is_empty(), "no accessors of {}", layout.name);
        return Vec::new();
    };
    let text = text.split_once("\n}\n").expect("the end of the accessors").0;
    let getters = text.split("pub fn ").filter_map(|function| function.split_once("(&self)"));
    let fields = getters.map(|(field, body)| {
        let at = body.find("_bitfield_").expect("a getter that reads its group");
        let mut words = body[at..].split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let group = words.next().expect("the name of a group");
        let mut number = |suffix: &str| {
            let number = words.find_map(|word| word.strip_suffix(suffix)?.parse::<usize>().ok());
            number.unwrap_or_else(|| panic!("no {suffix} in {body}"))
        };
        let (bit, width) = (number("usize"), number("u8"));
        let known = layout.groups.iter().find(|(name, _)| *name == group);
        let (_, offset) = known.unwrap_or_else(|| panic!("{} has another group, {group}", layout.name));
        let mut bits = Bits::new();
        for bit in bit..bit + width {
            // The first bit is the lowest one on the little-endian machines that nginx's packages are for.
            *bits.entry(offset + bit / 8).or_default() |= 1 << (bit % 8);
        }
        (format!("{}.{field}", layout.name), bits)
    });
    fields.collect()
}

/// Sizes and bit-fields by the C compiler, from a program that sets each field in a zeroed struct and looks for what changed.
fn compiled() -> (BTreeMap<String, usize>, BTreeMap<String, Bits>) {
    let mut program = String::from(
        "#include \"src/ngx/nginx.h\"\n#include <stdio.h>\n#include <string.h>\n\
         static void show(const char *name, const unsigned char *bytes, size_t size) {\n\
         printf(\"%s\", name);\n\
         for (size_t i = 0; i < size; i++) if (bytes[i]) printf(\" %zu:%u\", i, bytes[i]);\n\
         printf(\"\\n\"); }\nint main(void) {\n",
    );
    for layout in layouts() {
        // A name with a `struct` of its own in C ends in _s.
        let name = layout.name;
        let kind = if name.ends_with("_s") { format!("struct {name}") } else { name.to_string() };
        writeln!(program, "printf(\"{name} size %zu\\n\", sizeof({kind}));").unwrap();
        for (field, _) in bound_fields(&layout) {
            let member = field.rsplit('.').next().unwrap().trim_end_matches('_');
            writeln!(
                program,
                "{{ static {kind} s; memset(&s, 0, sizeof s); s.{member} = ~0; \
                 show(\"{field}\", (const unsigned char *) &s, sizeof s); }}"
            )
            .unwrap();
        }
    }
    program += "return 0; }\n";

    let dir = tempfile::tempdir().expect("a temporary directory");
    let (source, binary) = (dir.path().join("layout.c"), dir.path().join("layout"));
    std::fs::write(&source, &program).expect("the program's source");
    let mut compile = Command::new(std::env::var_os("CC").unwrap_or("cc".into()));
    compile.args(env!("METEORIT_NGINX_CFLAGS").split('\x1f')).args(["-w", "-I", env!("CARGO_MANIFEST_DIR")]);
    let output = compile.arg("-o").arg(&binary).arg(&source).output().expect("the C compiler runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = Command::new(&binary).output().expect("the program runs");
    assert!(output.status.success());

    let (mut sizes, mut fields) = (BTreeMap::new(), BTreeMap::new());
    for line in String::from_utf8(output.stdout).expect("text").lines() {
        let mut words = line.split(' ');
        let name = words.next().unwrap().to_string();
        let words: Vec<&str> = words.collect();
        if let ["size", size] = words[..] {
            sizes.insert(name, size.parse().unwrap());
            continue;
        }
        let bits = words.iter().map(|word| word.split_once(':').expect("PLACE:BYTE"));
        fields.insert(name, bits.map(|(at, byte)| (at.parse().unwrap(), byte.parse().unwrap())).collect());
    }
    (sizes, fields)
}
