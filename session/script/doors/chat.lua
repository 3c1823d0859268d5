-- A chat: clients join a room, one at a time, and talk to everybody in it.
-- chat.md is its page.

local ok = '{"status":"success"}'

local function failure(text)
    return '{"status":"error","msg":"' .. text .. '"}'
end

local operations = {}

function operations.join(conn, request)
    local room = request.room_id
    if type(room) == "number" and room % 1 == 0 then
        room = string.format("%d", room)
    end
    if type(room) ~= "string" or not room:match("^%w+$") then
        return failure("Invalid Room")
    end
    local current = conn:context_value("room")
    if current == room then
        return ok
    end
    if conn:subscribe("room:" .. room) then
        return failure("Forbidden")
    end
    if current then
        conn:unsubscribe("room:" .. current)
    end
    conn:set_context_value("room", room)
    return ok
end

function operations.quit(conn)
    local room = conn:context_value("room")
    if room then
        conn:unsubscribe("room:" .. room)
        conn:set_context_value("room", nil)
    end
    return ok
end

function operations.send(conn, request)
    local room = conn:context_value("room")
    if not room then
        return failure("Not In A Room")
    end
    if type(request.msg) ~= "string" then
        return failure("Invalid Message")
    end
    conn:send(ok)
    mix.mesh.publish("room:" .. room, mix.json_encode({
        client_id = tostring(conn:client_id()),
        msg = request.msg,
    }))
end

function on_message(msg)
    local conn = mix.websocket()
    local request = msg.type == "text" and mix.json_decode(msg.data)
    local operation = type(request) == "table" and operations[request.op]
    local answer = failure("Invalid Message")
    if operation then
        answer = operation(conn, request)
    end
    if answer then
        conn:send(answer)
    end
end
