"""The demo: simulated card transactions, a model, a bundle, a store, a server, a replay.

Nothing here is imported by the serving process. `simulator` makes transactions and `features` the
15 model inputs; `dataset` splits them by time, `states` is what is known of every customer and
terminal when the replay begins, `training` fits and exports a model that reads both `groups` from
a store, `artifacts` keeps what was made for the next run.

`stores` fills and opens a store (`redis_server` is one that may be killed). `processes` starts the
server and the client, `replay` is that client: the requests of `traffic`, the `pipeline` that keeps
the store up to date, the `tally` of the answers and their `quality`, and what it does about
outcomes (`learning`): `outcomes` come late and in part, `truth` knows better, `quality_state` asks
the server what it has learnt, `quality_words` says so. In a demo of exploring, `exploring` counts
what passes that would be blocked, and `exploring_words` says what that cost and bought. `report`
and `summary` show what happens, and `run` puts all of it in order. In a demo of drift, `faults` are
what may go wrong with the stream, `drifting` fits windows to the replay's clock, `drift_state` asks
the server what it makes of it, and `drift_words` says so. `prometheus` runs one with our rules.
What a second run imports (`columns`, `sizes`, `artifacts`, `run` …) is free of pandas.
"""
