"""The console: one page, for whoever watches a server, at the sidecar port.

Rules
-----
* Read-only: nothing here changes what serves, and no route takes a body or a parameter.
* It costs nothing when nobody looks: no thread, no timer; what is read is read when it is asked
  for, once a second at most, however many look.
* Everything that is not ours (names, reasons, whys) is text: `tree` escapes it in one place, the
  script sets it with `textContent`, and the policy of `headers` forbids everything else.
* What an entry of the journal, or an event, holds of routing keys stays there: this port asks for
  no token.

How it works: readers (`traffic`, `drift`, `quality`, `changes`, `stores`, `state`) return plain
structs, which `/console/data` tells as JSON; `parts` makes trees of elements of them. A tree is
told as HTML in the page and as JSON to the script, which patches the page with it: so both show the
same, and the page works without the script.
"""
