"""Everything that talks to OpenAI-compatible endpoints; a step needs `params` and `requests` of it.

    with endpoint(params, ctx) as asker:  # params: the step's, an EndpointParams
        replies = asker.ask([Request(row["prompt"], prompt_seed(params.seed, row["id"])) for row in rows], sampling)

A reply is a tuple of samples or a `Failed` that says why there are none; `as_drop` makes a row's Drop of it. In YAML:

    - label: {model: gpt-4o-mini, base_url: https://api.openai.com/v1, api_key_env: ./keys.txt,
              requests_per_minute: 500, tokens_per_minute: 200000, spend_cap: 25}      limits are those of one key

params: a step's parameters. providers: how each provider wants a request written. requests: what is sent. replies: how
it is read. client: asks, from any thread. sending: one call until its outcome. pace: keys and limits. journal: answers
on disk. spend, prices: money.
"""
