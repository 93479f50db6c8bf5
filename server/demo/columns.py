"""Names of columns, as the *Fraud Detection Handbook* publishes them, and the windows in them."""

from __future__ import annotations

WINDOWS_DAYS = (1, 7, 30)
DELAY_DAYS = 7  # until a fraud is known
HISTORY_DAYS = DELAY_DAYS + max(WINDOWS_DAYS)  # rows this far from the first one have whole windows

RAW_COLUMNS = (
    "TRANSACTION_ID",
    "TX_DATETIME",
    "CUSTOMER_ID",
    "TERMINAL_ID",
    "TX_AMOUNT",
    "TX_TIME_SECONDS",
    "TX_TIME_DAYS",
    "TX_FRAUD",
    "TX_FRAUD_SCENARIO",
)
TARGET = "TX_FRAUD"

BOOLEANS = ("TX_DURING_WEEKEND", "TX_DURING_NIGHT")
CUSTOMER_COLUMNS = tuple(
    f"CUSTOMER_ID_{what}_{days}DAY_WINDOW"
    for days in WINDOWS_DAYS
    for what in ("NB_TX", "AVG_AMOUNT")
)
TERMINAL_COLUMNS = tuple(
    f"TERMINAL_ID_{what}_{days}DAY_WINDOW" for days in WINDOWS_DAYS for what in ("NB_TX", "RISK")
)
# The 15 model inputs.
FEATURES = ("TX_AMOUNT", *BOOLEANS, *CUSTOMER_COLUMNS, *TERMINAL_COLUMNS)

# The raw columns that the features are made of.
NEEDED_COLUMNS = ("TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT", TARGET)
