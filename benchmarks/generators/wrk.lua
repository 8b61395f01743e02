-- The requests that wrk sends: API (replicad, etcd-v2, etcd-v3), workload (put, get, missing, mix, hot, prefix), number
-- of keys, bytes of a value, host and port, folder of the keys (six characters, slash included), query.
-- `benchmarks/generators/wrk.py` gives the arguments in this order.
--
-- Keys are bench/000000, bench/000001, ... for the folder "bench/"; a value is a number of 12 digits that grows, then filling. Everything that
-- stays the same is put together before the load begins: what wrk spends is taken from the servers.

local SYMBOLS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function base64(text)
  local found = {}
  for place = 1, #text, 3 do
    local a, b, c = text:byte(place, place + 2)
    local number = a * 65536 + (b or 0) * 256 + (c or 0)
    local part = ""
    for power = 3, 0, -1 do
      local digit = math.floor(number / 64 ^ power) % 64
      part = part .. SYMBOLS:sub(digit + 1, digit + 1)
    end
    if not c then part = part:sub(1, b and 3 or 2) .. (b and "=" or "==") end
    found[#found + 1] = part
  end
  return table.concat(found)
end

-- Three digits are four symbols of base64, so a number is encoded by looking up its groups of three.
local groups = {}
local function digits(number, count, encoded)
  local text = string.format("%0" .. count .. "d", number)
  if not encoded then return text end
  local found = ""
  for place = 1, count, 3 do found = found .. groups[text:sub(place, place + 2)] end
  return found
end

local threads = 0
function setup(thread)
  thread:set("id", threads)
  threads = threads + 1
end

local make = {}
local keys, host, folder, query, filling, number

local function whole(method, path, body, kind)
  local head = method .. " " .. path .. " HTTP/1.1\r\nHost: " .. host .. "\r\n"
  if not body then return head .. "\r\n" end
  return head .. (kind or "") .. "Content-Length: " .. #body .. "\r\n\r\n" .. body
end

local FORM = "Content-Type: application/x-www-form-urlencoded\r\n"
local JSON = "Content-Type: application/json\r\n"

-- A PUT in three parts: before the key, between key and number, after the number. For `etcd-v3` key and number are
-- within the body, for the others the key is in the path.
local function split(text)
  local first, key_end = text:find("KEYKEY", 1, true)
  local second, number_end = text:find("NUMBERNUMBER", 1, true)
  return text:sub(1, first - 1), text:sub(key_end + 1, second - 1), text:sub(number_end + 1)
end

local function put_parts(api)
  if api == "replicad" then return split(whole("PUT", "/v1/kv/" .. folder .. "KEYKEY" .. query, "NUMBERNUMBER" .. filling)) end
  if api == "etcd-v2" then
    return split(whole("PUT", "/v2/keys/" .. folder .. "KEYKEY", "value=NUMBERNUMBER" .. filling, FORM))
  end
  local template = '{"key":"%s%s","value":"%s%s"}'
  local key, value = string.rep("k", 8), string.rep("n", 16)
  local text = whole("POST", "/v3/kv/put", template:format(base64(folder), key, value, base64(filling)), JSON)
  return split((text:gsub(key, "KEYKEY", 1):gsub(value, "NUMBERNUMBER", 1)))
end

local function get_request(api, key)
  if api == "replicad" then return whole("GET", "/v1/kv/" .. key .. query) end
  if api == "etcd-v2" then return whole("GET", "/v2/keys/" .. key .. query) end
  local body = '{"key":"%s","serializable":%s}'
  return whole("POST", "/v3/kv/range", body:format(base64(key), query == "?stale" and "true" or "false"), JSON)
end

local function prefix_request(api, prefix)
  if api == "replicad" then return whole("GET", "/v1/kv/" .. prefix .. "?recurse") end
  local after = prefix:sub(1, -2) .. string.char(prefix:byte(-1) + 1)
  return whole("POST", "/v3/kv/range", string.format('{"key":"%s","range_end":"%s"}', base64(prefix), base64(after)), JSON)
end

function make.put(api, hot)
  local before, between, after = put_parts(api)
  local encoded = api == "etcd-v3"
  return function()
    number = number + 1
    local key = hot and 0 or math.random(0, keys - 1)
    return before .. digits(key, 6, encoded) .. between .. digits(number, 12, encoded) .. after
  end
end

function make.hot(api) return make.put(api, true) end

-- Requests of up to this many keys are kept; one of a million keys is put together when it is sent.
local KEPT_MAX = 20000

function make.get(api, other)
  local name = (other or folder) .. "%06d"
  if keys > KEPT_MAX then return function() return get_request(api, name:format(math.random(0, keys - 1))) end end
  local kept = {}
  for key = 0, keys - 1 do kept[key] = get_request(api, name:format(key)) end
  return function() return kept[math.random(0, keys - 1)] end
end

function make.missing(api) return make.get(api, "none/") end

function make.mix(api)
  local get, put = make.get(api), make.put(api)
  return function() return math.random(10) == 1 and put() or get() end
end

function make.prefix(api)
  local kept = {}
  for each = 0, math.floor(keys / 1000) - 1 do kept[each] = prefix_request(api, string.format("%s%03d", folder, each)) end
  return function() return kept[math.random(0, #kept)] end
end

function init(args)
  local api, workload = args[1], args[2]
  keys, host, folder, query = tonumber(args[3]), args[5], args[6], args[7] or ""
  filling = string.rep("x", tonumber(args[4]) - 12)
  for group = 0, 999 do
    local text = string.format("%03d", group)
    groups[text] = base64(text)
  end
  math.randomseed(os.time() * 100 + id)
  number = (os.time() % 1000000) * 100000 + id * 50000
  request = make[workload](api)
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT {"requests": %d, "microseconds": %d, "status": %d, "broken": %d, "max": %d}\n',
    summary.requests, summary.duration, e.status, e.connect + e.read + e.write + e.timeout, latency.max))
  for place = 1, #latency do
    local value, count = latency(place)
    io.write(string.format("LATENCY %d %d\n", value, count))
  end
end
