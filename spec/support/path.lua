--- Runs before the specs (see .busted): what lies in this folder can be required.
package.path = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") .. "/?.lua;" .. package.path
