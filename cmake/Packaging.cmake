# What `cmake --install` puts where, and the Debian package that `cpack` makes of it (docs/installation.md).
include(GNUInstallDirs)

# From the program's own help: its table of commands and their options.
set(manual ${PROJECT_BINARY_DIR}/switchyard.1)
set(completion ${PROJECT_BINARY_DIR}/switchyard.bash-completion)
set(from_help ${PROJECT_SOURCE_DIR}/launch/packaging/from_help.sh)
add_custom_command(OUTPUT ${manual} ${completion}
  COMMAND ${from_help} man $<TARGET_FILE:switchyard> ${manual}
  COMMAND ${from_help} bash $<TARGET_FILE:switchyard> ${completion}
  DEPENDS switchyard ${from_help} VERBATIM)
add_custom_target(switchyard_manual ALL DEPENDS ${manual} ${completion})

install(FILES ${manual} DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${completion} DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME switchyard)
install(FILES README.md CHANGELOG.md LICENSE CITATION.cff DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY configs DESTINATION ${CMAKE_INSTALL_DATADIR}/switchyard)
install(PROGRAMS launch/mpirun.sh launch/plot.sh launch/submit DESTINATION ${CMAKE_INSTALL_DATADIR}/switchyard/launch)
install(FILES launch/slurm/train.sbatch DESTINATION ${CMAKE_INSTALL_DATADIR}/switchyard/launch/slurm)
install(FILES launch/packaging/modulefile DESTINATION ${CMAKE_INSTALL_DATADIR}/modulefiles/switchyard
  RENAME ${PROJECT_VERSION})

# The tests need not be built for that.
set(CMAKE_SKIP_INSTALL_ALL_DEPENDENCY ON)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME switchyard)
set(CPACK_PACKAGE_CONTACT "The Switchyard contributors <switchyard@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_PACKAGE_FILE_NAME "switchyard_${PROJECT_VERSION}_${CMAKE_SYSTEM_PROCESSOR}")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "openmpi-bin")
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "openssh-client")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "gnuplot-nox, slurm-client, python3-h5py")
include(CPack)
