-- :Grep PATTERN   searches the files below the current folder; :Grep! takes PATTERN as plain text
-- :GrepCancel     ends the search
-- Copy this folder into one of 'packpath' (or `set rtp+=.../examples/nvim`).
vim.api.nvim_create_user_command("Grep", function(command)
  require("treadle_grep").search(command.args, { plain = command.bang })
  vim.cmd "copen"
end, { nargs = 1, bang = true })

vim.api.nvim_create_user_command("GrepCancel", function()
  require("treadle_grep").cancel()
end, {})

-- What is searched when the editor ends is of no use: it need not be waited for.
vim.api.nvim_create_autocmd("VimLeavePre", {
  callback = function()
    if package.loaded.treadle_grep then
      require("treadle_grep").cancel()
    end
  end,
})
