"""Who may use how much: limits of principals, groups and the gateway, and the ledger of what they spend.

Used by the layers and the command line. What decides is pure (`accounts`, `windows`, `ledger`, `costs`).
"""
