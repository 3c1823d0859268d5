-- Comments that fly over a video: clients subscribe to videos, a backend pushes to them.
-- barrage.md is its page.

local ok = '{"result":true}'
local invalid = '{"code":1,"msg":"Invalid Message"}'
local forbidden = '{"code":1,"msg":"Forbidden"}'

function on_message(msg)
    local conn = mix.websocket()
    local request = msg.type == "text" and mix.json_decode(msg.data)
    if type(request) ~= "table" then
        conn:send(invalid)
        return
    end

    -- "100001@video" is the channel video:100001
    local id = type(request.channel) == "string" and request.channel:match("^(%w+)@video$")
    if not id then
        conn:send(invalid)
        return
    end

    if request.op == "subscribe" then
        if conn:subscribe("video:" .. id) then
            conn:send(forbidden)
            return
        end
    elseif request.op == "unsubscribe" then
        conn:unsubscribe("video:" .. id)
    else
        conn:send(invalid)
        return
    end
    conn:send(ok)
end
