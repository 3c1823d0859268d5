-- A message centre: clients log in with a token and subscribe to their own messages.
-- message-center.md is its page.

local login = require("login")

local ok = '{"result":true}'

local function failure(text)
    return '{"code":1,"msg":"' .. text .. '"}'
end

local operations = {}

function operations.auth(conn, request)
    local problem = login(conn, request.token)
    return problem and failure(problem) or ok
end

function operations.subscribe(conn, request)
    local uid = conn:context_value("uid")
    if not uid then
        return failure("Not Auth")
    end
    if request.channel ~= "@user" then
        return failure("Invalid Channel")
    end
    if conn:subscribe("user:" .. uid) then
        return failure("Forbidden")
    end
    return ok
end

function operations.unsubscribe(conn, request)
    local uid = conn:context_value("uid")
    if not uid then
        return failure("Not Auth")
    end
    if request.channel ~= "@user" then
        return failure("Invalid Channel")
    end
    conn:unsubscribe("user:" .. uid)
    return ok
end

function on_message(msg)
    local conn = mix.websocket()
    local request = msg.type == "text" and mix.json_decode(msg.data)
    local operation = type(request) == "table" and operations[request.op]
    if operation then
        conn:send(operation(conn, request))
    else
        conn:send(failure("Invalid Message"))
    end
end
