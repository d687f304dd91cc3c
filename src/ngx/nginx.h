/* The headers that the bindings are made from. */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>
#include <ngx_http.h>

/* A macro that concatenates string literals: bindgen wants an object to evaluate it by. */
const char *meteorit_module_signature = NGX_MODULE_SIGNATURE;

/* Angie signs its modules in a field that nginx has to spare, and counts versions of its own. */
#ifdef ngx_angie_sign
const ngx_uint_t meteorit_angie_sign = ngx_angie_sign;
const ngx_uint_t meteorit_module_version = angie_version;
#else
const ngx_uint_t meteorit_module_version = nginx_version;
#endif
