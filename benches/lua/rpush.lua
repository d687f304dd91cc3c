-- What stands in the place of Meteorit at a site without it: checks that the body is JSON and appends it to a list.
local cjson = require "cjson.safe"
local redis = require "nginx.redis"

ngx.req.read_body()
local event = ngx.req.get_body_data()
if not event or not cjson.decode(event) then
    return ngx.exit(400)
end

local client = redis:new()
client:set_timeout(1000)
local ok = client:connect("127.0.0.1", redis_port)
if not ok then
    return ngx.exit(503)
end
local length = client:rpush("events", event)
if not length then
    return ngx.exit(502)
end
client:set_keepalive(60000, 512)
return ngx.exit(204)
