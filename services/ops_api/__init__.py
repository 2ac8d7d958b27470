"""What the house is doing and what it earned, for people: HTTP, a live page, statistics, and the commands of people.

It hears everything and changes nothing but through commands. `readmodels` folds what is heard into rows and a little
memory, `earnings` makes the figures, `queries` and `explain` answer, `routes` and `live` are the doors, `access` says
who may open them. Losing this service's file loses nothing: it is folded again from the streams.
"""
