"""How each hold comes to its end: at the end of its call, or later."""
