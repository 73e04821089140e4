"""`licet import`: the records of an older system, from JSON Lines into a running licet.

    lines     the lines of a file: strict JSON, of bounded length
    fields    the fields of a record, and every rule that one breaks
    instants  points in time, as old systems write them
    records   the types of records
    source    the file that is imported
    rejects   the file of those that were not imported
    keys_file the file of the credentials that were made
    tally     what became of how many
    scan      the first reading: each record alone, and which others it is about
    order     capabilities, each after its parent
    sending   many calls at once
    earlier   what an earlier import of the same source has left in licet
    issuing   credentials, each made once
    desk      what every loader works with
    users, agents, tokens, grants, audit_rows   one loader for each type of record
    run       all of it in order

Nothing here talks to the database: the import is a client of the API, under the same rules as any
other.
"""
