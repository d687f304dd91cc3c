//! Reading the configuration: directives, their arguments, complex values, addresses, and errors with file and line.

use std::ffi::{CStr, CString, OsStr};
use std::marker::PhantomData;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr::NonNull;

use super::peer::Address;
use super::{exports, log, sys, values};
use crate::conf;

/// One of this module's directives: a row of the table in `crate::conf`.
pub struct Directive {
    pub name: &'static CStr,
    /// Where it may stand: [`context`] values.
    pub contexts: u32,
    pub args: CommandArgs,
    pub set: fn(&mut Conf, &mut conf::Main, &mut conf::Location) -> Result<(), String>,
}

/// How many arguments a directive takes; nginx itself refuses any other number.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum CommandArgs {
    /// Any number, none too.
    Any = sys::NGX_CONF_ANY,
    NoneOrOne = sys::NGX_CONF_NOARGS | sys::NGX_CONF_TAKE1,
    One = sys::NGX_CONF_TAKE1,
    Two = sys::NGX_CONF_TAKE2,
    OneOrTwo = sys::NGX_CONF_TAKE1 | sys::NGX_CONF_TAKE2,
    TwoOrThree = sys::NGX_CONF_TAKE2 | sys::NGX_CONF_TAKE3,
    OneOrMore = sys::NGX_CONF_1MORE,
    Flag = sys::NGX_CONF_FLAG,
    /// A name or a value, and a block.
    NamedBlock = sys::NGX_CONF_TAKE1 | sys::NGX_CONF_BLOCK,
}

/// Where a directive may stand.
pub mod context {
    use super::sys;
    pub const HTTP: u32 = sys::NGX_HTTP_MAIN_CONF;
    pub const SERVER: u32 = sys::NGX_HTTP_SRV_CONF;
    pub const LOCATION: u32 = sys::NGX_HTTP_LOC_CONF;
    pub const IF_IN_LOCATION: u32 = sys::NGX_HTTP_LIF_CONF;
    pub const LIMIT_EXCEPT: u32 = sys::NGX_HTTP_LMT_CONF;
}

/// The configuration while it is read.
pub struct Conf<'c> {
    cf: NonNull<sys::ngx_conf_t>,
    config: PhantomData<&'c ()>,
}

/// A place in the configuration, for errors that are found later.
#[derive(Clone)]
pub struct Position {
    file: String,
    line: usize,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A value with nginx variables in it, compiled; evaluated for a request.
pub struct Complex(pub(super) NonNull<sys::ngx_http_complex_value_t>);

impl Conf<'_> {
    /// # Safety
    /// `cf` must be valid as long as the Conf is used.
    pub(super) unsafe fn new(cf: NonNull<sys::ngx_conf_t>) -> Self {
        Conf { cf, config: PhantomData }
    }

    pub(super) fn raw(&mut self) -> *mut sys::ngx_conf_t {
        self.cf.as_ptr()
    }

    /// The directive's words: its name and its arguments.
    pub fn words(&self) -> Vec<Vec<u8>> {
        // SAFETY: while a directive is handled, args is an array of its words.
        unsafe {
            let args = &*(*self.cf.as_ptr()).args;
            let words = std::slice::from_raw_parts(args.elts.cast::<sys::ngx_str_t>(), args.nelts);
            words.iter().map(|word| word.bytes().to_vec()).collect()
        }
    }

    /// Where the reading stands.
    pub fn position(&self) -> Position {
        // SAFETY: conf_file is null only for what comes from the command line.
        unsafe {
            match (*self.cf.as_ptr()).conf_file.as_ref() {
                None => Position { file: "command line".into(), line: 0 },
                Some(file) => {
                    Position { file: String::from_utf8_lossy(file.file.name.bytes()).into_owned(), line: file.line }
                }
            }
        }
    }

    /// An error that ends `nginx -t`; nginx adds file and line of the directive being read.
    pub fn emerg(&self, message: &str) {
        // SAFETY: "%*s" takes a size_t and a pointer.
        unsafe {
            sys::ngx_conf_log_error(
                sys::NGX_LOG_EMERG as sys::ngx_uint_t,
                self.cf.as_ptr(),
                0,
                c"%*s".as_ptr(),
                message.len(),
                message.as_ptr(),
            );
        }
    }

    /// An error with the place in its text already.
    pub fn emerg_elsewhere(&self, message: &str) {
        // SAFETY: the configuration has a log.
        unsafe { log::write((*self.cf.as_ptr()).log, sys::NGX_LOG_EMERG as sys::ngx_uint_t, message.as_bytes()) }
    }

    /// A warning with the place in its text.
    pub fn warn_elsewhere(&self, message: &str) {
        // SAFETY: the configuration has a log.
        unsafe { log::write((*self.cf.as_ptr()).log, sys::NGX_LOG_WARN as sys::ngx_uint_t, message.as_bytes()) }
    }

    /// Compiles a value with variables; nginx has logged what is wrong with one that does not compile.
    pub fn compile(&mut self, value: &[u8]) -> Result<Complex, ()> {
        // SAFETY: the copy of the text and the compiled value are in the configuration's pool, which outlives every
        // request; all zeros is how nginx's own modules start an ngx_http_compile_complex_value_t.
        unsafe {
            let pool = (*self.cf.as_ptr()).pool;
            let text = sys::ngx_pnalloc(pool, value.len() + 1).cast::<u8>();
            let complex = sys::ngx_pcalloc(pool, size_of::<sys::ngx_http_complex_value_t>());
            let (Some(text), Some(complex)) = (NonNull::new(text), NonNull::new(complex.cast())) else {
                return Err(());
            };
            text.as_ptr().copy_from_nonoverlapping(value.as_ptr(), value.len());
            *text.as_ptr().add(value.len()) = 0;
            let mut value = sys::ngx_str_t { len: value.len(), data: text.as_ptr() };

            let mut compile: sys::ngx_http_compile_complex_value_t = std::mem::zeroed();
            compile.cf = self.cf.as_ptr();
            compile.value = &raw mut value;
            compile.complex_value = complex.as_ptr();
            match sys::ngx_http_compile_complex_value(&raw mut compile) {
                sys::OK => Ok(Complex(complex)),
                _ => Err(()),
            }
        }
    }

    /// Makes `$name` a variable whose value is that of `variables::defined` for `index`; again for a name that has been
    /// defined so before.
    pub fn define_variable(&mut self, name: &[u8], index: usize) -> Result<(), String> {
        let mut text = sys::ngx_str_t::view(name);
        let flags = sys::NGX_HTTP_VAR_CHANGEABLE | sys::NGX_HTTP_VAR_NOCACHEABLE;
        // SAFETY: nginx copies the name, and gives back a variable of the configuration, or null and an error logged.
        let variable =
            unsafe { sys::ngx_http_add_variable(self.cf.as_ptr(), &raw mut text, flags as sys::ngx_uint_t).as_mut() };
        let Some(variable) = variable else { return Err(String::new()) };
        let ours: unsafe extern "C" fn(_, _, _) -> _ = exports::get_defined;
        if variable.get_handler.is_some_and(|handler| !std::ptr::fn_addr_eq(handler, ours)) {
            return Err(format!("the variable \"${}\" has another meaning already", String::from_utf8_lossy(name)));
        }
        variable.get_handler = Some(ours);
        variable.data = index;
        Ok(())
    }

    /// Whether a `map`, `geo`, `split_clients` or the like gives the variable its value, so that the configuration lists
    /// what it can be.
    pub fn is_chosen_by_a_table(&self, name: &str) -> bool {
        // SAFETY: the core module's main configuration has the names and variables until the whole of it is merged.
        unsafe {
            let ctx = (*self.cf.as_ptr()).ctx.cast::<sys::ngx_http_conf_ctx_t>();
            let index = sys::ngx_http_core_module.ctx_index;
            let main = (*(*ctx).main_conf.add(index)).cast::<sys::ngx_http_core_main_conf_t>();
            let Some(keys) = (*main).variables_keys.as_ref() else { return false };
            let keys = std::slice::from_raw_parts(keys.keys.elts.cast::<sys::ngx_hash_key_t>(), keys.keys.nelts);
            let found = keys.iter().find(|key| key.key.bytes().eq_ignore_ascii_case(name.as_bytes()));
            found.is_some_and(|key| values::is_table(&*key.value.cast()))
        }
    }

    /// Reads a block, handing each directive in it to `directive`; false when something in it was wrong, which is then
    /// logged.
    pub fn block(&mut self, directive: &mut dyn FnMut(&mut Conf) -> Result<(), String>) -> bool {
        struct Inner<'a>(&'a mut dyn FnMut(&mut Conf) -> Result<(), String>);

        unsafe extern "C" fn each(
            cf: *mut sys::ngx_conf_t,
            _: *mut sys::ngx_command_t,
            inner: *mut core::ffi::c_void,
        ) -> *mut core::ffi::c_char {
            // SAFETY: nginx hands back the configuration and the Inner that it was given below.
            let (Some(cf), inner) = (NonNull::new(cf), unsafe { &mut *inner.cast::<Inner>() }) else {
                return sys::CONF_ERROR;
            };
            // SAFETY: valid during this call.
            let mut conf = unsafe { Conf::new(cf) };
            if conf.words().first().is_some_and(|name| name == b"include") {
                // SAFETY: the words of an include directive are in cf, as ngx_conf_include expects.
                return unsafe { sys::ngx_conf_include(cf.as_ptr(), std::ptr::null_mut(), inner as *mut _ as _) };
            }
            match (inner.0)(&mut conf) {
                Ok(()) => sys::CONF_OK,
                Err(message) => {
                    conf.emerg(&message);
                    sys::CONF_ERROR
                }
            }
        }

        let mut inner = Inner(directive);
        // SAFETY: the configuration is a plain struct that nginx's own block directives copy, change and put back; the
        // handler runs only inside ngx_conf_parse, while `inner` lives.
        unsafe {
            let cf = self.cf.as_ptr();
            let saved = *cf;
            (*cf).handler = Some(each);
            (*cf).handler_conf = (&raw mut inner).cast();
            let status = sys::ngx_conf_parse(cf, std::ptr::null_mut());
            *cf = saved;
            status == sys::CONF_OK
        }
    }

    /// The whole path of a file that is named as from the folder of the configuration.
    pub fn full_path(&mut self, path: &[u8]) -> Result<PathBuf, String> {
        let name = self.full_name(path, true)?;
        // SAFETY: in the configuration's pool.
        Ok(PathBuf::from(OsStr::from_bytes(unsafe { name.bytes() })))
    }

    fn full_name(&mut self, path: &[u8], of_conf: bool) -> Result<sys::ngx_str_t, String> {
        // nginx's names end with a NUL byte that does not count.
        let mut name = self.copy(&[path, b"\0"].concat())?;
        name.len = path.len();
        // SAFETY: a relative name is replaced by one made in the pool; the given one is only read.
        match unsafe { sys::ngx_conf_full_name((*self.cf.as_ptr()).cycle, &raw mut name, of_conf.into()) } {
            sys::OK => Ok(name),
            _ => Err("out of memory".into()),
        }
    }

    /// A copy in the configuration's pool.
    pub(super) fn copy(&mut self, bytes: &[u8]) -> Result<sys::ngx_str_t, String> {
        // SAFETY: the configuration's pool; the memory is as large as told, and nobody else's.
        unsafe {
            let copy = sys::ngx_pnalloc((*self.cf.as_ptr()).pool, bytes.len()).cast::<u8>();
            if copy.is_null() {
                return Err("out of memory".into());
            }
            copy.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            Ok(sys::ngx_str_t { len: bytes.len(), data: copy })
        }
    }

    /// A folder for data that nginx makes once all is read, with mode 0700 and for the user of its workers, as it does for
    /// its temporary files (`ngx_create_paths`). A relative name is as from nginx's prefix.
    pub fn folder(&mut self, path: &[u8]) -> Result<PathBuf, String> {
        let name = self.full_name(path, false)?;
        // SAFETY: an ngx_path_t is plain data for which all zeros is what nginx begins with; it lives in the pool of the
        // configuration, and so does its name.
        unsafe {
            let cf = self.cf.as_ptr();
            let path = sys::ngx_pcalloc((*cf).pool, size_of::<sys::ngx_path_t>()).cast::<sys::ngx_path_t>();
            if path.is_null() {
                return Err("out of memory".into());
            }
            (*path).name = name;
            let mut slot = path;
            if sys::ngx_add_path(cf, &raw mut slot) != sys::OK {
                // nginx has logged why.
                return Err(String::new());
            }
            Ok(PathBuf::from(OsStr::from_bytes((*path).name.bytes())))
        }
    }

    /// The text of a file that holds a secret, without the line ends behind it; see [`Conf::full_path`].
    pub fn read_secret(&mut self, path: &[u8]) -> Result<Vec<u8>, String> {
        let path = self.full_path(path)?;
        let mut text = std::fs::read(&path).map_err(|e| format!("cannot read \"{}\": {e}", path.display()))?;
        while text.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            text.pop();
        }
        Ok(text)
    }

    /// The addresses of `endpoint`, written as nginx does: `host:port`, `[v6]:port`, `unix:path`. Names are resolved
    /// here and now, as those of an upstream are.
    pub fn resolve(&mut self, endpoint: &str) -> Result<Vec<Address>, String> {
        let text = CString::new(endpoint).map_err(|_| "a NUL byte in the address".to_owned())?;
        // SAFETY: all zeros is how nginx's own modules start an ngx_url_t. It keeps pointers to the text, so that is
        // copied into the pool; what it answers lives there too.
        unsafe {
            let cf = self.cf.as_ptr();
            let bytes = text.as_bytes_with_nul();
            let copy = sys::ngx_pnalloc((*cf).pool, bytes.len()).cast::<u8>();
            if copy.is_null() {
                return Err("out of memory".into());
            }
            copy.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            let mut url: sys::ngx_url_t = std::mem::zeroed();
            url.url = sys::ngx_str_t { len: endpoint.len(), data: copy };
            if sys::ngx_parse_url((*cf).pool, &raw mut url) != sys::OK {
                let reason = match url.err.is_null() {
                    true => "invalid address".into(),
                    false => CStr::from_ptr(url.err).to_string_lossy(),
                };
                return Err(format!("{reason} in \"{endpoint}\""));
            }
            let found = match url.naddrs {
                0 => &[][..],
                n => std::slice::from_raw_parts(url.addrs, n),
            };
            Ok(found.iter().filter_map(|address| Self::address(address)).collect())
        }
    }

    /// # Safety
    /// `found` must be an address that nginx made.
    unsafe fn address(found: &sys::ngx_addr_t) -> Option<Address> {
        let length = found.socklen as usize;
        if length > size_of::<libc::sockaddr_storage>() {
            return None;
        }
        // SAFETY: sockaddr_storage is plain data, and `length` bytes fit into it.
        unsafe {
            let mut sockaddr: libc::sockaddr_storage = std::mem::zeroed();
            (&raw mut sockaddr).cast::<u8>().copy_from_nonoverlapping(found.sockaddr.cast(), length);
            let text = String::from_utf8_lossy(found.name.bytes()).into_owned();
            Some(Address { sockaddr, length: found.socklen, text })
        }
    }

    /// The first name of the server that is being merged; empty where it has none.
    pub fn server_name(&self) -> String {
        // SAFETY: cf->ctx is the context of a server, whose core settings are merged before those of this module.
        unsafe {
            let ctx = (*self.cf.as_ptr()).ctx.cast::<sys::ngx_http_conf_ctx_t>();
            let index = sys::ngx_http_core_module.ctx_index;
            let server = (*(*ctx).srv_conf.add(index)).cast::<sys::ngx_http_core_srv_conf_t>();
            String::from_utf8_lossy((*server).server_name.bytes()).into_owned()
        }
    }

    /// nginx's own settings of the location that is being read or merged.
    pub fn core(&mut self) -> Core<'_> {
        // SAFETY: cf->ctx is the context of the http block, server or location; the core module's part is always there.
        unsafe {
            let ctx = (*self.cf.as_ptr()).ctx.cast::<sys::ngx_http_conf_ctx_t>();
            let index = sys::ngx_http_core_module.ctx_index;
            Core(&mut *(*(*ctx).loc_conf.add(index)).cast())
        }
    }
}

/// nginx's own settings of a location.
pub struct Core<'c>(&'c mut sys::ngx_http_core_loc_conf_t);

impl Core<'_> {
    /// As written in the configuration.
    pub fn name(&self) -> String {
        // SAFETY: the name is a word of the configuration.
        unsafe { String::from_utf8_lossy(self.0.name.bytes()).into_owned() }
    }

    /// Whether this is the block of an `if` or a `limit_except`, which has no name of its own.
    pub fn is_nameless(&self) -> bool {
        self.0.noname() != 0
    }

    pub fn is_limit_except(&self) -> bool {
        self.0.lmt_excpt() != 0
    }

    pub fn has_handler(&self) -> bool {
        self.0.handler.is_some()
    }

    pub fn has_our_handler(&self) -> bool {
        let ours: unsafe extern "C" fn(_) -> _ = exports::content_handler;
        self.0.handler.is_some_and(|handler| std::ptr::fn_addr_eq(handler, ours))
    }

    pub fn set_our_handler(&mut self) {
        self.0.handler = Some(exports::content_handler);
    }

    /// What error_page says, an array of ngx_http_err_page_t; null where there is none.
    pub(super) fn error_pages(&self) -> *mut sys::ngx_array_t {
        self.0.error_pages
    }

    /// client_body_buffer_size, in bytes.
    pub fn body_buffer(&self) -> usize {
        self.0.client_body_buffer_size
    }

    /// client_max_body_size, in bytes; 0 is no limit.
    pub fn max_body(&self) -> u64 {
        u64::try_from(self.0.client_max_body_size).unwrap_or(0)
    }
}

/// A size as nginx writes it (`16m`), in bytes.
pub fn parse_size(text: &[u8]) -> Option<usize> {
    let mut text = sys::ngx_str_t::view(text);
    // SAFETY: ngx_parse_size only reads the string.
    usize::try_from(unsafe { sys::ngx_parse_size(&raw mut text) }).ok()
}

/// A time as nginx writes it (`1s`, `500ms`), in milliseconds.
pub fn parse_msec(text: &[u8]) -> Option<u64> {
    let mut text = sys::ngx_str_t::view(text);
    // SAFETY: ngx_parse_time only reads the string.
    u64::try_from(unsafe { sys::ngx_parse_time(&raw mut text, 0) }).ok()
}
