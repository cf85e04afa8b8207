// containerd's own suite for snapshotters, run against a socket.
package suite

import (
	"context"
	"os"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/pkg/testutil"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/proxy"
	"github.com/containerd/containerd/snapshots/testsuite"
	"google.golang.org/grpc"
)

func TestSnapshotter(t *testing.T) {
	testutil.RequiresRoot(t)
	address := "unix://" + os.Getenv("SNAPSHOTTER")
	testsuite.SnapshotterSuite(t, "layerstore", func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		connection, err := grpc.Dial(address, grpc.WithInsecure())
		if err != nil {
			return nil, nil, err
		}
		// Each case has a root of its own: as the name of the snapshotter, it gives it snapshots of its own.
		found := proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(connection), root)
		return found, func() error {
			defer connection.Close()
			return removeAll(ctx, found)
		}, nil
	})
}

// removeAll removes what a case has left, children before parents: the suite leaves that to the end of its folder.
func removeAll(ctx context.Context, snapshotter snapshots.Snapshotter) error {
	var failed error
	for {
		var keys []string
		err := snapshotter.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
			keys = append(keys, info.Name)
			return nil
		})
		if err != nil || len(keys) == 0 {
			return err
		}
		removed := false
		for _, key := range keys {
			if err := snapshotter.Remove(ctx, key); err != nil {
				failed = err
			} else {
				removed = true
			}
		}
		if !removed {
			return failed
		}
	}
}
