"""Features -> HMM: readings of the regime, models trained when due, evidence on them when the governor asks.

series, markets, baskets     one instrument, or several read as one: what is read of each bar
drift, transitions           whether the model still foretells its market; how often each regime followed each
schedule, claims, training   when a training is due, who asked for it, and that it is done once
bars, trainer                from the ingester's bars to a candidate with its manifest
fitting, fit_lines           the process of its own in which a model is fitted, and what it says on the way
em, ensembles, synthetic     how: expectation and maximisation, several models as one, made-up bars where there are few
evidence, jobs               how a model does on bars that it has never seen, and the governor's orders for that
registry                     what is kept, and how it comes back
ml_service, service          what is done with each message, and the shell
routes, train_routes, model_routes, regime_routes    what one may ask
"""
