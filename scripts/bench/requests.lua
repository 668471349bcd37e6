-- The requests of one wrk run: wrk -s requests.lua URL -- WORKLOAD USERS
-- They are built before the clock starts; a run only picks and joins them.

local DATES = 10000      -- as in contract.py and database.py
local MOST = 100000      -- of a larger table, use so many users, evenly spread

local gets, heads, bodies, turns = {}, {}, {}, {}
local random = math.random
local users, numbers

local function get(i)
  return gets[i]
end

-- A date that this user did not have before.
local function put(i)
  local turn = turns[i] + 1
  turns[i] = turn
  return heads[i] .. bodies[turn % DATES]
end

-- The date that is stored already.
local function put_same(i)
  return heads[i] .. bodies[numbers[i] % DATES]
end

local function mix(i)
  if random(10) == 1 then return put(i) end
  return get(i)
end

local workloads = {
  ["get"] = function() return get(random(users)) end,
  ["put"] = function() return put(random(users)) end,
  ["put-same"] = function() return put_same(random(users)) end,
  ["mix"] = function() return mix(random(users)) end,
  ["hot"] = function() return mix(1) end,
}

function init(arguments)
  request = workloads[arguments[1]]
  local stored = tonumber(arguments[2])
  users = math.min(stored, MOST)

  for day = 0, DATES - 1 do
    bodies[day] = '{"dateOfBirth":"' .. os.date("!%Y-%m-%d", day * 86400) .. '"}'
  end
  math.randomseed(os.time())
  local start = random(DATES)  -- another one than the run before
  numbers = {}
  for i = 1, users do
    numbers[i] = math.floor((i - 1) * stored / users)
    local path = "/hello/user" .. numbers[i]
    gets[i] = wrk.format("GET", path)
    local whole = wrk.format("PUT", path, {["Content-Type"] = "application/json"}, bodies[0])
    heads[i] = whole:sub(1, -1 - #bodies[0])
    turns[i] = start + i
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %f, "p50": %f, "p99": %f, "errors": %d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.timeout + errors.status))
end
