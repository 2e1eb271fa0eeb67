def summary(games, note): return {}
def tables(record): return ""
def plot(record, path): pass
