"""What tests share: real servers that can be killed, and ways to walk every path."""
