"""The commands, each a script, and the stages that they share; in folders what kinds of run bring and take."""
