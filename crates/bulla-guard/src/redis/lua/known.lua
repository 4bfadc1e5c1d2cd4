-- Everything but `open`: a store whose epoch is gone was emptied, and knows nothing.
if is_new then lose() end
