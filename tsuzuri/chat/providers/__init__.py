"""よその計算機のモデル (+)：一つのファイルが一つの通信形式。 / Models elsewhere (+): one file, one wire format.

Each has `chat(address, model, key=None) -> Chat`: the same events as a model of our own, and a RemoteError or ConfigError that
says what came instead. Only the address that was given is contacted: redirects are not followed, proxies of the environment not used.
"""
