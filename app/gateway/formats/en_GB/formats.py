"""How the admin shows times: to the second, as the history of a balance needs it."""

DATETIME_FORMAT = "Y-m-d H:i:s"
