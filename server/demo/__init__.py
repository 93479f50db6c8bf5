"""The demo: simulated card transactions, a model, a bundle, a server, a replay.

Nothing here is imported by the serving process. `simulator` makes transactions and `features` the
15 model inputs; `dataset` splits them by time, `training` fits and exports a model, `artifacts`
keeps what was made for the next run. `processes` starts the server and the client, `replay` is
that client with the requests of `traffic`, `report` shows what happens, and `run` puts all of it in
order. What a second run imports (`columns`, `sizes`, `artifacts`, `run` …) is free of pandas.
"""
