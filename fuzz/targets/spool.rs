#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| meteorit_fuzz::spool::check(input));
