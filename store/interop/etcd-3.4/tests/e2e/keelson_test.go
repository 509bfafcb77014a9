// Ports for a test that runs beside others.

package e2e

import (
	"os"
	"strconv"
)

func firstPort() int {
	if port, err := strconv.Atoi(os.Getenv("KEELSON_INTEROP_PORTS")); err == nil {
		return port
	}
	return 20000
}
