-- For wrk: posts one body again and again, and says what was seen as one line of JSON.
-- BENCHMARK_BODY is the body, BENCHMARK_HEADERS has lines such as "name: value".

wrk.method = "POST"
wrk.body = os.getenv("BENCHMARK_BODY")
for name, value in string.gmatch(os.getenv("BENCHMARK_HEADERS"), "([^\n:]+): ([^\n]*)") do
   wrk.headers[name] = value
end

function done(summary, latency, requests)
   local errors, quantiles = 0, {}
   for _, count in pairs(summary.errors) do errors = errors + count end
   for share = 1, 1000 do
      -- Whose share is 100 would be beyond the last one.
      quantiles[share] = string.format("%.6f", latency:percentile(math.min(share / 10, 99.99)) / 1e6)
   end
   io.write(string.format('\n{"requests": %d, "errors": %d, "bytes": %d, "latencies": [%s]}\n',
      summary.requests, errors, summary.bytes, table.concat(quantiles, ", ")))
end
