# Prints how long files and functions are, and how much of the code is tests and comments. For `./dev lines`.
#
# It relies on rustfmt: a function ends at the closing brace in the column of its first line, and the tests of a file are in
# a module at its end, behind `#[cfg(test)]` or the like.

FNR == 1 { end_file(); name = FILENAME; tests = FILENAME ~ /\/(tests|benches|examples|fuzz_targets)\// }
/^#\[cfg\((all\()?test/ { tests = 1 }
/#\[test\]/ { test_count++ }
tests { next }
{
    lines++
    total++
}
/^ *\/\/[^\/!]/ { comments++ }
/^ *\/\/[\/!]/ { docs++ }
!/^ *\/\// && !/^ *$/ { code++ }
indent == "" && match($0, /^ *(pub(\([a-z]+\))? )?(const )?(unsafe )?fn [a-z_0-9]+/) {
    if ($0 !~ /[;}]$/) {
        match($0, /^ */)
        indent = RLENGTH + 1
        function_start = FNR
    }
}
indent != "" && $0 == sprintf("%" (indent - 1) "s}", "") {
    functions[++function_count] = FNR - function_start + 1
    if (functions[function_count] > longest_function) {
        longest_function = functions[function_count]
        longest_function_at = FILENAME ":" function_start
    }
    indent = ""
}

function end_file() {
    if (lines > 0) {
        files[++file_count] = lines
        if (lines > longest_file) { longest_file = lines; longest_file_name = name }
    }
    lines = 0
    indent = ""
}

function quantile(values, count, q,    i, j, value) {
    for (i = 2; i <= count; i++) {
        value = values[i]
        for (j = i - 1; j > 0 && values[j] > value; j--) values[j + 1] = values[j]
        values[j + 1] = value
    }
    return values[int((count - 1) * q) + 1]
}

END {
    end_file()
    printf "%-10s %6d lines without tests; median %d, p90 %d, longest %d (%s)\n", "files", total,
        quantile(files, file_count, 0.5), quantile(files, file_count, 0.9), longest_file, longest_file_name
    printf "%-10s %6d; median %d lines, p90 %d, longest %d (%s)\n", "functions", function_count,
        quantile(functions, function_count, 0.5), quantile(functions, function_count, 0.9), longest_function, longest_function_at
    printf "%-10s %6d; %.1f for each thousand lines of code\n", "tests", test_count, 1000 * test_count / code
    printf "%-10s %6.1f %% of the lines of code, documentation not counted; documentation %.1f %%\n", "comments",
        100 * comments / code, 100 * docs / code
}
