package pebble

import "golang.org/x/sys/unix"

// remote are the kinds of file system where another machine, or a program, answers for the disk. FUSE is among them: it
// may be sshfs or a bucket, and nothing tells.
var remote = map[uint32]string{
	unix.NFS_SUPER_MAGIC:   "NFS",
	unix.SMB_SUPER_MAGIC:   "SMB",
	unix.SMB2_SUPER_MAGIC:  "SMB",
	unix.CIFS_SUPER_MAGIC:  "SMB",
	unix.FUSE_SUPER_MAGIC:  "a FUSE file system",
	unix.V9FS_MAGIC:        "9P",
	unix.AFS_SUPER_MAGIC:   "AFS",
	unix.AFS_FS_MAGIC:      "AFS",
	unix.CODA_SUPER_MAGIC:  "Coda",
	unix.CEPH_SUPER_MAGIC:  "CephFS",
	unix.NCP_SUPER_MAGIC:   "NCP",
	unix.OCFS2_SUPER_MAGIC: "OCFS2",
	0x01161970:             "GFS2",
	0x0bd00bd0:             "Lustre",
	0x47504653:             "GPFS",
	0x19830326:             "BeeGFS",
	0x786f4256:             "a VirtualBox share",
	0xbacbacbc:             "a VMware share",
}

func diskSpace(dir string) (Space, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(dir, &st)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return Space{}, err
		}
		return Space{
			Bytes:     st.Bavail * uint64(st.Bsize),
			Inodes:    st.Ffree,
			HasInodes: st.Files > 0, // btrfs and others make inodes as they go and say 0
			ReadOnly:  st.Flags&unix.ST_RDONLY != 0,
			Network:   remote[uint32(st.Type)],
		}, nil
	}
}
