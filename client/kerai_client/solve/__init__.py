"""Program repair without a language model: `kerai solve mutate`.

The way of one call: `mutate` copies the working directory and starts `testserver` in it; `matrix` says
which statement each test runs and ranks statements by suspicion; `operators` proposes edits of them;
`search` tries the edits, best first, and the one that makes fewer tests fail is written back.
"""
