-- wrk: each request reserves one unit, with a key of its own, of one of ITEMS items from the id FIRST on. The TOKENS are
-- brought in turn, if there are any.
local items = tonumber(os.getenv("ITEMS"))
local first = tonumber(os.getenv("FIRST"))
local n = 0
local tokens = {}
for token in (os.getenv("TOKENS") or ""):gmatch("%S+") do tokens[#tokens + 1] = token end

function init()
   prefix = os.getenv("RUN") .. tostring({}):sub(8) .. "-"
end

function request()
   n = n + 1
   local headers = {["Content-Type"] = "application/json", ["Idempotency-Key"] = prefix .. n}
   if #tokens > 0 then headers["Authorization"] = "Bearer " .. tokens[1 + n % #tokens] end
   -- A prime step visits every item before it visits one again.
   return wrk.format("POST", "/reservations", headers, '{"item_id":' .. (first + n * 7919 % items) .. ',"quantity":1}')
end
