"""The engine next to others: is it right, how fast is it, where does its time go?"""
