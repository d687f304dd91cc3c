/* The headers that the bindings are made from. */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>
#include <ngx_http.h>

/* A macro that concatenates string literals: bindgen wants an object to evaluate it by. */
const char *meteorit_module_signature = NGX_MODULE_SIGNATURE;
