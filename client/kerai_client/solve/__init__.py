"""Program repair without a language model: `kerai solve mutate`.

The way of one call: `mutate` lets `runner` copy the working directory and start `testserver` in it. `matrix`
says which statement each test runs and ranks statements by suspicion. The operators in `expressions`, `names`
and `rewriting` propose edits of them. `search` tries these, best first, and the one that makes fewer tests
fail is written back.
"""
