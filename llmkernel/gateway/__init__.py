"""The gateway: HTTP in the dialects of other servers, over the workers that run.

It holds no model and no queue of its own: every request goes through
`llmkernel.client`. One table of routes (routes.py) says all there is; one handler
(handler.py) guards, reads, dispatches and reports for every row of it.
"""
