"""Client for OpenAI-compatible endpoints; steps import only `params` and `requests`.

    with endpoint(params, ctx) as client:  # params: the step's, an EndpointParams
        replies = client.ask([Request(row["prompt"], prompt_seed(params.seed, row["id"])) for row in rows], sampling)

A reply is a tuple of samples, or a `Failed` with the reason, which `as_drop` converts to a Drop. In YAML:

    - label: {model: gpt-4o-mini, base_url: https://api.openai.com/v1, api_key_env: ./keys.txt,
              requests_per_minute: 500, tokens_per_minute: 200000, spend_cap: 25}      rate limits are per key

params: a step's parameters. providers: request formats of providers. requests: request bodies. replies: parsing of
responses. client: sends requests from any thread. sending: one call with its retries. pace: keys and rate limits.
journal: replies on disk. spend, prices: cost.
"""
