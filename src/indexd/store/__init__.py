"""Every statement of the program.

A function takes a connection, inside the transaction that its caller opened, and the time `at`
where time matters; it returns structs. Nothing here knows HTTP or the command line.
"""
