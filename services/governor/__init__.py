"""Who may be used: applications, the evidence on them, promotions and demotions, in a record that cannot be changed.

gate            the profiles: every rule, its limit, and whether an applicant passes; pure
applications    who applied, with what, and how far it has come; pure
examination     which evidence is asked for, on which span, and what is wrong with what came; pure
governor        applicants and evidence in, rulings out; pure
record          one line for each change, in a chain of hashes
memory          what is kept, and how it comes back
enacting        from a ruling to what is kept and said
routes, service governance by hand, and the shell
"""
