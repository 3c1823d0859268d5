-- The market data of an exchange: public channels of each symbol for everybody, private ones
-- of an account for who has logged in. exchange.md is its page.

local login = require("login")

local public = { depth = true, trades = true, markprice = true, ticker = true, kline = true }
local private = { balance = true, order = true, position = true, account = true }

-- What the channels of this door begin with, so that no client gets at those of another.
local prefix = "ex:"

local ok = '{"result":true}'

local function failure(text)
    return '{"code":1,"msg":"' .. text .. '"}'
end

-- channel returns the channel that a client means, or nil and what to answer.
local function channel(conn, name)
    local symbol, kind = string.match(type(name) == "string" and name or "", "^([%w_-]*)@(%w+)$")
    if public[kind] and symbol ~= "" then
        return prefix .. symbol .. "@" .. kind
    end
    if private[kind] and symbol == "" then
        local uid = conn:context_value("uid")
        if not uid then
            return nil, failure("Not Auth")
        end
        return prefix .. string.format("%d@%s", uid, kind)
    end
    return nil, failure("Invalid Channel")
end

local operations = {}

function operations.auth(conn, request)
    local problem = login(conn, request.token)
    return problem and failure(problem) or ok
end

function operations.subscribe(conn, request)
    local name, answer = channel(conn, request.channel)
    if not name then
        return answer
    end
    if conn:subscribe(name) then
        return failure("Forbidden")
    end
    return ok
end

function operations.unsubscribe(conn, request)
    local name, answer = channel(conn, request.channel)
    if not name then
        return answer
    end
    conn:unsubscribe(name)
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
