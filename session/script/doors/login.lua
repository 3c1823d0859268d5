-- Logging in with a token of the business system, for the doors that need it.

-- Answers {"uid":1001} to POST {"token":"..."}, or another status than 200.
local auth_url = mix.server.option("auth_url") or "http://127.0.0.1:8000/websocket_auth"

-- login makes conn the connection of the member whose token it is, and returns nil; or why
-- it did not.
local function login(conn, token)
    local response, err = mix.http.request("POST", auth_url, {
        headers = { ["Content-Type"] = "application/json" },
        body = mix.json_encode({ token = type(token) == "string" and token or "" }),
    })
    if err or response.status_code >= 500 then
        mix.log(mix.WARN, "auth backend: " .. (err or "status " .. response.status_code))
        return "Try Again Later"
    end
    local user = response.status_code == 200 and mix.json_decode(response.body)
    local uid = type(user) == "table" and user.uid
    if type(uid) ~= "number" or uid < 1 or uid > 2 ^ 53 - 1 or uid % 1 ~= 0 then
        return "Auth Failed"
    end
    local current = conn:context_value("uid")
    if current and current ~= uid then
        return "Already Auth"
    end
    conn:set_context_value("uid", uid)
end

return login
