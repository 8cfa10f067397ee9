"""Max-min functions and their exact compilation into critics."""
