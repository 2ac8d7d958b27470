"""What is said: every message, every subject, the wire form. Imports nothing of ours.

A message is a frozen struct in the room of its topic (`market`, `regime`, `governance`, `parameters`, `execution`,
`risk`, `jobs`, `operations`). `subjects` says where each is spoken, by whom, and how long it is kept. `wire` turns
one into bytes and back.
"""
