-- wrk: each request reserves a free quarter of an hour, with a key of its own, of one of ITEMS calendars from the id
-- FIRST on. With BOOKINGS, it asks for a booking at the venue of that calendar. The first quarter of an hour begins at START, in seconds since 1970.
local items = tonumber(os.getenv("ITEMS"))
local first = tonumber(os.getenv("FIRST"))
local start = tonumber(os.getenv("START"))
local n = -1

function init()
   prefix = os.getenv("RUN") .. tostring({}):sub(8) .. "-"
end

local function instant(seconds)
   return os.date("!%Y-%m-%dT%H:%M:%SZ", seconds)
end

function request()
   n = n + 1
   local headers = {["Content-Type"] = "application/json", ["Idempotency-Key"] = prefix .. n}
   -- A prime step visits every calendar before it visits one again, for the next quarter of an hour.
   local begin = start + (n - n % items) / items * 900
   if os.getenv("BOOKINGS") then
      local body = '{"venue_id":"venue-' .. (1 + n * 7919 % items) .. '","booking_date":"' .. os.date("!%Y-%m-%d", begin)
         .. '","booking_time":"' .. os.date("!%H:%M:%S", begin) .. '","duration_minutes":15,"party_size":1}'
      return wrk.format("POST", "/api/v1/bookings", headers, body)
   end
   local body = '{"item_id":' .. (first + n * 7919 % items) .. ',"quantity":1,"start":"' .. instant(begin)
      .. '","end":"' .. instant(begin + 900) .. '"}'
   return wrk.format("POST", "/reservations", headers, body)
end
