//! What nginx sees of the library: the module, its directives and hooks, each handed to safe code.

use core::ffi::{c_char, c_void};
use std::ptr::{self, NonNull};

use super::conf::{Conf, Directive};
use super::request::{OutOfMemory, Request};
use super::{filter, sys, thread};
use crate::conf::Content;
use crate::{conf, module, request, status, variables};

/// A static that nginx reads, and writes only while it is single-threaded.
#[repr(transparent)]
pub struct ForNginx<T>(T);

// SAFETY: nginx's processes have one thread that touches modules.
unsafe impl<T> Sync for ForNginx<T> {}

#[unsafe(no_mangle)]
pub static ngx_modules: ForNginx<[*const sys::ngx_module_t; 2]> =
    ForNginx([&raw const ngx_http_meteorit_module, ptr::null()]);

#[unsafe(no_mangle)]
pub static ngx_module_names: ForNginx<[*const c_char; 2]> =
    ForNginx([c"ngx_http_meteorit_module".as_ptr(), ptr::null()]);

#[unsafe(no_mangle)]
pub static ngx_module_order: ForNginx<[*const c_char; 1]> = ForNginx([ptr::null()]);

/// NGX_MODULE_UNSET_INDEX (`core/ngx_module.h`).
const UNSET: sys::ngx_uint_t = sys::ngx_uint_t::MAX;

#[allow(non_upper_case_globals)]
static mut ngx_http_meteorit_module: sys::ngx_module_t = sys::ngx_module_t {
    ctx_index: UNSET,
    index: UNSET,
    name: ptr::null_mut(),
    spare0: 0,
    #[cfg(not(angie))]
    spare1: 0,
    #[cfg(angie)]
    angie_sign: sys::meteorit_angie_sign,
    version: sys::meteorit_module_version,
    signature: sys::meteorit_module_signature.as_ptr(),
    ctx: (&raw const CONTEXT).cast_mut().cast(),
    commands: (&raw const COMMANDS).cast_mut().cast(),
    type_: sys::NGX_HTTP_MODULE as sys::ngx_uint_t,
    init_master: None,
    init_module: None,
    init_process: Some(init_process),
    init_thread: None,
    exit_thread: None,
    exit_process: Some(exit_process),
    exit_master: None,
    spare_hook0: 0,
    spare_hook1: 0,
    spare_hook2: 0,
    spare_hook3: 0,
    spare_hook4: 0,
    spare_hook5: 0,
    spare_hook6: 0,
    spare_hook7: 0,
};

static CONTEXT: ForNginx<sys::ngx_http_module_t> = ForNginx(sys::ngx_http_module_t {
    preconfiguration: Some(preconfiguration),
    postconfiguration: Some(postconfiguration),
    create_main_conf: Some(create_main),
    init_main_conf: Some(init_main),
    create_srv_conf: None,
    merge_srv_conf: None,
    create_loc_conf: Some(create_location),
    merge_loc_conf: Some(merge),
});

/// What tells its zone from those of other modules.
pub(super) fn tag() -> *mut c_void {
    (&raw mut ngx_http_meteorit_module).cast()
}

/// This module's place in the arrays of contexts and configurations.
pub(super) fn context_index() -> usize {
    // SAFETY: written once, while nginx reads load_module.
    unsafe { ngx_http_meteorit_module.ctx_index }
}

const DIRECTIVES: usize = conf::DIRECTIVES.len();

static COMMANDS: ForNginx<[sys::ngx_command_t; DIRECTIVES + 1]> = ForNginx({
    let end = sys::ngx_command_t {
        name: sys::ngx_str_t { len: 0, data: ptr::null_mut() },
        type_: 0,
        set: None,
        conf: 0,
        offset: 0,
        post: ptr::null_mut(),
    };
    let mut commands = [end; DIRECTIVES + 1];
    let mut i = 0;
    while i < DIRECTIVES {
        let directive: &'static Directive = &conf::DIRECTIVES[i];
        commands[i] = sys::ngx_command_t {
            // nginx compares names as C strings.
            name: sys::ngx_str_t::view(directive.name.to_bytes()),
            type_: (directive.contexts | directive.args as u32) as sys::ngx_uint_t,
            set: Some(set),
            conf: std::mem::offset_of!(sys::ngx_http_conf_ctx_t, loc_conf),
            offset: 0,
            post: (&raw const *directive).cast_mut().cast(),
        };
        i += 1;
    }
    commands
});

unsafe extern "C" fn set(
    cf: *mut sys::ngx_conf_t,
    command: *mut sys::ngx_command_t,
    location: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx gives the configuration that it reads, our command with its directive, and the location's part of
    // the configuration; the main part is another object. Nobody else holds references to either.
    unsafe {
        let (Some(cf), Some(location)) = (NonNull::new(cf), location.cast::<conf::Location>().as_mut()) else {
            return sys::CONF_ERROR;
        };
        let directive = &*(*command).post.cast::<Directive>();
        let Some(main) = main_conf(cf) else { return sys::CONF_ERROR };
        let mut conf = Conf::new(cf);
        match (directive.set)(&mut conf, main, location) {
            Ok(()) => sys::CONF_OK,
            Err(message) => {
                if !message.is_empty() {
                    conf.emerg(&message);
                }
                sys::CONF_ERROR
            }
        }
    }
}

/// # Safety
/// `cf` must be in the http block, with no other reference to this module's main configuration.
unsafe fn main_conf<'a>(cf: NonNull<sys::ngx_conf_t>) -> Option<&'a mut conf::Main> {
    // SAFETY: cf->ctx is the http block's or a server's context, all with the same main_conf, where nginx has put what
    // `create` made.
    unsafe {
        let ctx = (*cf.as_ptr()).ctx.cast::<sys::ngx_http_conf_ctx_t>();
        (*(*ctx).main_conf.add(context_index())).cast::<conf::Main>().as_mut()
    }
}

unsafe extern "C" fn create_main(cf: *mut sys::ngx_conf_t) -> *mut c_void {
    // SAFETY: nginx gives the configuration that it reads.
    unsafe { create(cf, conf::Main::default()) }
}

/// The block's words are those that are being handled.
unsafe extern "C" fn create_location(cf: *mut sys::ngx_conf_t) -> *mut c_void {
    let Some(conf) = NonNull::new(cf) else { return ptr::null_mut() };
    // SAFETY: nginx gives the configuration that it reads; the parts of a block are made before anything of it is read.
    unsafe { create(cf, conf::Location::begin(&Conf::new(conf).words())) }
}

/// # Safety
/// `cf` must be the configuration that is being read.
unsafe fn create<T>(cf: *mut sys::ngx_conf_t, conf: T) -> *mut c_void {
    unsafe extern "C" fn destroy<T>(data: *mut c_void) {
        // SAFETY: leaked from a box below; the pool calls this once, as the last thing that happens to it.
        drop(unsafe { Box::from_raw(data.cast::<T>()) });
    }
    // SAFETY: the configuration's pool is valid.
    unsafe {
        let Some(cleanup) = sys::ngx_pool_cleanup_add((*cf).pool, 0).as_mut() else { return ptr::null_mut() };
        let conf = Box::into_raw(Box::new(conf)).cast();
        cleanup.handler = Some(destroy::<T>);
        cleanup.data = conf;
        conf
    }
}

/// Everything has been read, and nothing merged yet: the http block's own location part is of no merge the inner one.
unsafe extern "C" fn init_main(cf: *mut sys::ngx_conf_t, main: *mut c_void) -> *mut c_char {
    // SAFETY: nginx gives the configuration of the http block and what `create` made for it.
    unsafe {
        let (Some(cf), Some(main)) = (NonNull::new(cf), main.cast::<conf::Main>().as_ref()) else {
            return sys::CONF_ERROR;
        };
        let ctx = (*cf.as_ptr()).ctx.cast::<sys::ngx_http_conf_ctx_t>();
        let location = (*(*ctx).loc_conf.add(context_index())).cast::<conf::Location>();
        if let Some(location) = location.as_mut() {
            location.judge_commands(&Conf::new(cf), main);
        }
    }
    sys::CONF_OK
}

unsafe extern "C" fn merge(cf: *mut sys::ngx_conf_t, outer: *mut c_void, inner: *mut c_void) -> *mut c_char {
    // SAFETY: nginx gives the configuration, and two different objects made by `create`.
    unsafe {
        let (Some(cf), Some(outer), Some(inner)) =
            (NonNull::new(cf), outer.cast::<conf::Location>().as_ref(), inner.cast::<conf::Location>().as_mut())
        else {
            return sys::CONF_ERROR;
        };
        let Some(main) = main_conf(cf) else { return sys::CONF_ERROR };
        let mut conf = Conf::new(cf);
        match inner.merge(&mut conf, main, outer) {
            Ok(()) => sys::CONF_OK,
            Err(message) => {
                conf.emerg_elsewhere(&message);
                sys::CONF_ERROR
            }
        }
    }
}

unsafe extern "C" fn preconfiguration(cf: *mut sys::ngx_conf_t) -> sys::ngx_int_t {
    // All of them change between two readings: they are empty before the body is there.
    let flags = sys::NGX_HTTP_VAR_NOCACHEABLE as sys::ngx_uint_t;
    let add = |name: &str, flags, handler, data| {
        let mut name = sys::ngx_str_t::view(name.as_bytes());
        // SAFETY: nginx copies the name, and gives back a variable of the configuration or null.
        match unsafe { sys::ngx_http_add_variable(cf, &raw mut name, flags).as_mut() } {
            None => sys::ERROR,
            Some(variable) => {
                variable.get_handler = Some(handler);
                variable.data = data;
                sys::OK
            }
        }
    };
    for (index, (name, _)) in variables::VARIABLES.iter().enumerate() {
        if add(name, flags, get_variable, index) != sys::OK {
            return sys::ERROR;
        }
    }
    // SAFETY: this is the module's preconfiguration.
    if unsafe { filter::add_variable(cf) }.is_err() {
        return sys::ERROR;
    }
    add(variables::MEMBER_PREFIX, flags | sys::NGX_HTTP_VAR_PREFIX as sys::ngx_uint_t, get_member, 0)
}

/// Everything has been read and merged.
unsafe extern "C" fn postconfiguration(cf: *mut sys::ngx_conf_t) -> sys::ngx_int_t {
    // SAFETY: nginx gives the configuration of the http block; nobody holds a reference to this module's part.
    unsafe {
        let Some(cf) = NonNull::new(cf) else { return sys::ERROR };
        let Some(main) = main_conf(cf) else { return sys::ERROR };
        filter::install_filter();
        let mut conf = Conf::new(cf);
        if let Err(message) = main.finish(&mut conf) {
            if !message.is_empty() {
                conf.emerg_elsewhere(&message);
            }
            return sys::ERROR;
        }
        match main.has_cors.then(|| filter::install_handler(cf)) {
            None | Some(Ok(())) => sys::OK,
            Some(Err(OutOfMemory)) => sys::ERROR,
        }
    }
}

unsafe extern "C" fn get_variable(
    r: *mut sys::ngx_http_request_t,
    value: *mut sys::ngx_http_variable_value_t,
    index: usize,
) -> sys::ngx_int_t {
    let Some((_, get)) = variables::VARIABLES.get(index) else { return sys::ERROR };
    // SAFETY: nginx gives a live request and the value to fill.
    unsafe { give(r, value, get) }
}

/// A variable that a directive defines; `index` is its place in `Main::defined`.
pub(super) unsafe extern "C" fn get_defined(
    r: *mut sys::ngx_http_request_t,
    value: *mut sys::ngx_http_variable_value_t,
    index: usize,
) -> sys::ngx_int_t {
    // SAFETY: as above.
    unsafe { give(r, value, |request| variables::defined(request, index)) }
}

/// `$event_NAME`; `name` is nginx's pointer to the whole name.
unsafe extern "C" fn get_member(
    r: *mut sys::ngx_http_request_t,
    value: *mut sys::ngx_http_variable_value_t,
    name: usize,
) -> sys::ngx_int_t {
    // SAFETY: as above; for a prefix variable nginx gives the address of an ngx_str_t with the name (ngx_http_variables.c).
    unsafe {
        let name = (*ptr::with_exposed_provenance::<sys::ngx_str_t>(name)).bytes();
        let name = name.get(variables::MEMBER_PREFIX.len()..).unwrap_or_default();
        give(r, value, |request| variables::member(request, name))
    }
}

/// # Safety
/// The request must be live, and the value writable.
unsafe fn give(
    r: *mut sys::ngx_http_request_t,
    value: *mut sys::ngx_http_variable_value_t,
    get: impl for<'r> FnOnce(&Request<'r>) -> Result<Option<&'r [u8]>, OutOfMemory>,
) -> sys::ngx_int_t {
    let Some(r) = NonNull::new(r) else { return sys::ERROR };
    // SAFETY: by the caller's word.
    unsafe {
        let request = Request::new(r);
        let value = &mut *value;
        match get(&request) {
            Ok(Some(text)) => {
                value.set_len(text.len() as u32);
                value.data = text.as_ptr().cast_mut();
                value.set_valid(1);
                value.set_no_cacheable(0);
                value.set_not_found(0);
                sys::OK
            }
            Ok(None) => {
                value.set_not_found(1);
                sys::OK
            }
            Err(OutOfMemory) => sys::ERROR,
        }
    }
}

/// Of every location in which this module answers.
pub(super) unsafe extern "C" fn content_handler(r: *mut sys::ngx_http_request_t) -> sys::ngx_int_t {
    let Some(r) = NonNull::new(r) else { return sys::ERROR };
    // SAFETY: nginx gives a live request in its content phase.
    let request = unsafe { Request::new(r) };
    let handle = match request.location().content() {
        Some(Content::Status(_) | Content::Ready(_)) => return status::handle(request).0,
        Some(Content::SelfTest(_)) => request::selftest::handle,
        Some(Content::Events(_)) | None => request::handle,
    };
    match request.start() {
        Ok(()) => handle(request).0,
        Err(OutOfMemory) => sys::NGX_HTTP_INTERNAL_SERVER_ERROR as sys::ngx_int_t,
    }
}

unsafe extern "C" fn init_process(cycle: *mut sys::ngx_cycle_t) -> sys::ngx_int_t {
    thread::started(cycle);
    // SAFETY: nginx gives the cycle that is in use from now on.
    if unsafe { matches!(sys::ngx_process as u32, sys::NGX_PROCESS_WORKER | sys::NGX_PROCESS_SINGLE) }
        && let Some(main) = unsafe { main_of(cycle) }
    {
        module::init_process(main);
    }
    sys::OK
}

/// This module's main configuration; None where there is no http block.
///
/// # Safety
/// `cycle` must be the one in use.
unsafe fn main_of<'a>(cycle: *mut sys::ngx_cycle_t) -> Option<&'a conf::Main> {
    // SAFETY: ngx_http_cycle_get_module_main_conf (http/ngx_http_config.h).
    unsafe {
        let index = sys::ngx_http_module.index;
        let ctx = (*(*cycle).conf_ctx.add(index)).cast::<sys::ngx_http_conf_ctx_t>();
        (*ctx.as_ref()?.main_conf.add(context_index())).cast::<conf::Main>().as_ref()
    }
}

unsafe extern "C" fn exit_process(cycle: *mut sys::ngx_cycle_t) {
    // SAFETY: nginx calls this after its event loop, and after the same hook of its own modules.
    unsafe { thread::settle() };
    // SAFETY: as in init_process.
    if let Some(main) = unsafe { main_of(cycle) } {
        module::exit_process(main);
    }
}
