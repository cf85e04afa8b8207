#!/usr/bin/lua5.4
print('lua')
